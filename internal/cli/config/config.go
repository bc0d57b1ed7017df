// Package config is the user's file of defaults: for flags of run and create, and for environment variables. It holds what
// may stand there in one table, from which the file is read, shown, and described by docs/config.schema.json.
//
// Layer: part of the front cli. It may import api, errdefs, and the parts of cli below it.
package config

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/document"
)

// Variable names the file, instead of the usual place.
const Variable = "SMOLVM_CONFIG"

// maxFile bounds the file.
const maxFile = 64 << 10

// Path returns where the file is, whether or not there is one. must tells that there has to be, since it was named.
func Path(getenv func(string) string) (name string, must bool, err error) {
	if name = getenv(Variable); name != "" {
		name, err = filepath.Abs(name)
		if err != nil {
			return "", true, errdefs.Host.Errorf("find %s: %w", Variable, err)
		}
		return name, true, nil
	}
	dir := getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) { // as its specification wants it
		home := getenv("HOME")
		if home == "" {
			return "", false, nil // nowhere
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "smolvm", "config.yaml"), false, nil
}

// entry is a key that the file sets.
type entry struct {
	key
	values []string
	line   int
}

// File is what was read.
type File struct {
	Name    string // "" where there is none
	entries []entry
}

// Load reads the user's file. Where there is none, File is empty.
func Load(getenv func(string) string) (File, error) {
	name, must, err := Path(getenv)
	if err != nil || name == "" {
		return File{}, err
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return File{}, nil
	}
	if err != nil {
		return File{}, errdefs.Invalid.Errorf("configuration: %w", err).WithRemedy("smolvm config path")
	}
	defer func() { _ = f.Close() }()
	return Read(f, name)
}

// Read reads a file. Its name is for messages, and what relative paths in it begin at.
func Read(r io.Reader, name string) (File, error) {
	b, err := document.Read(r, maxFile)
	var entries []entry
	if err == nil {
		entries, err = parse(b)
	}
	if err != nil {
		return File{}, errdefs.Invalid.Errorf("configuration %s: %w", name, err).WithRemedy("smolvm config validate")
	}
	f := File{Name: name, entries: entries}
	for i, e := range f.entries {
		if e.kind == path || e.kind == program && strings.Contains(e.values[0], "/") {
			f.entries[i].values = []string{expand(e.values[0], filepath.Dir(name))}
		}
	}
	return f, nil
}

// expand makes a path absolute: ~ is the user's home.
func expand(name, dir string) string {
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// SetEnv sets the variables that are not set.
func (f File) SetEnv(getenv func(string) string, setenv func(name, value string) error) error {
	for _, e := range f.entries {
		if e.env == "" || getenv(e.env) != "" {
			continue
		}
		if err := setenv(e.env, strings.Join(e.values, ",")); err != nil {
			return errdefs.Invalid.Errorf("%s: %w", f.at(e), err)
		}
	}
	return nil
}

// Env are the variables that all commands get.
func (f File) Env() map[string]string {
	for _, e := range f.entries {
		if e.kind == variables {
			env := map[string]string{}
			for _, v := range e.values {
				name, value, _ := strings.Cut(v, "=")
				env[name] = value
			}
			return env
		}
	}
	return nil
}

// SetFlags sets the flags of cmd that were not given.
func (f File) SetFlags(cmd *cobra.Command) error {
	flags := cmd.Flags()
	given := func(name string) bool { return flags.Lookup(name) != nil && flags.Lookup(name).Changed }
	network := slices.ContainsFunc(exclusive(), given)
	for _, e := range f.entries {
		if e.flag == "" || e.kind == variables || flags.Lookup(e.flag) == nil || given(e.flag) || network && slices.Contains(exclusive(), e.flag) {
			continue
		}
		for _, v := range e.values {
			if err := flags.Set(e.flag, v); err != nil {
				return errdefs.Invalid.Errorf("%s: %w", f.at(e), errors.Unwrap(err)).WithRemedy("smolvm config validate")
			}
		}
	}
	return nil
}

func (f File) at(e entry) string { return place(f.Name, e.line) + ": " + e.name }
