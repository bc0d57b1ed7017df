// Package value holds the values of flags and arguments that need more than parsing: sizes, times, variables, names.
//
// Layer: part of the front cli. It may import api, errdefs.
package value

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// Size is a flag's value: a size in MiB, as Docker writes it (512m, 2g), or a plain number of MiB.
type Size int

// String implements pflag.Value.
func (m *Size) String() string {
	if *m == 0 {
		return ""
	}
	return strconv.Itoa(int(*m)) + "m"
}

// Type implements pflag.Value.
func (m *Size) Type() string { return "size" }

// Set implements pflag.Value.
func (m *Size) Set(s string) error {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		if n == 0 {
			return fmt.Errorf("the size must not be zero")
		}
		*m = Size(n)
		return nil
	}
	n, err := units.RAMInBytes(s)
	if err != nil {
		return fmt.Errorf("%q is no size: give 512m, 2g, or a number of MiB", s)
	}
	if n <= 0 || n%units.MiB != 0 || n/units.MiB > math.MaxInt32 {
		return fmt.Errorf("%q is no whole number of MiB", s)
	}
	*m = Size(n / units.MiB)
	return nil
}

// Duration is a flag's value: a duration (90s, 5m), or a plain number of seconds.
type Duration time.Duration

// String implements pflag.Value.
func (d *Duration) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

// Type implements pflag.Value.
func (d *Duration) Type() string { return "duration" }

// Set implements pflag.Value.
func (d *Duration) Set(s string) error {
	v, err := time.ParseDuration(s)
	if n, ferr := strconv.ParseFloat(s, 64); ferr == nil && n < 1e9 {
		v, err = time.Duration(n*float64(time.Second)), nil
	}
	if err != nil {
		return fmt.Errorf("%q is no duration: give 90s, 5m, or a number of seconds", s)
	}
	if v <= 0 {
		return fmt.Errorf("%q is not longer than nothing", s)
	}
	*d = Duration(v)
	return nil
}

// Milliseconds rounds up, so that a short limit does not become none.
func (d *Duration) Milliseconds() int64 {
	return int64((time.Duration(*d) + time.Millisecond - 1) / time.Millisecond)
}

// Env are the flags that set variables.
type Env struct {
	Base  map[string]string // under all that is given
	vars  []string
	files []string
}

// Flags adds them to f.
func (e *Env) Flags(f *pflag.FlagSet) {
	f.StringArrayVarP(&e.vars, "env", "e", nil, "set a variable: `NAME=VALUE`, or NAME for the value it has here")
	f.StringArrayVar(&e.files, "env-file", nil, "set the variables of a `FILE`, one per line")
}

// Resolve returns the variables; later ones win, and -e over files.
func (e *Env) Resolve(lookup func(string) (string, bool)) (map[string]string, error) {
	env := map[string]string{}
	maps.Copy(env, e.Base)
	for _, name := range e.files {
		if err := readEnvFile(name, lookup, env); err != nil {
			return nil, err
		}
	}
	for _, v := range e.vars {
		if err := setVar(v, lookup, env); err != nil {
			return nil, errdefs.Invalid.Errorf("env: %w", err)
		}
	}
	if len(env) == 0 {
		return nil, nil
	}
	return env, api.ValidateEnv(env)
}

func readEnvFile(name string, lookup func(string) (string, bool), env map[string]string) error {
	f, err := os.Open(name)
	if err != nil {
		return errdefs.Invalid.Errorf("env file: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := parseEnv(f, lookup, env); err != nil {
		return errdefs.Invalid.Errorf("env file %s: %w", name, err)
	}
	return nil
}

// parseEnv reads lines as `docker run --env-file` does: NAME=VALUE taken as it stands, NAME for the value it has here,
// empty lines and those that begin with # skipped.
func parseEnv(r io.Reader, lookup func(string) (string, bool), env map[string]string) error {
	s := bufio.NewScanner(io.LimitReader(r, 4<<20))
	s.Buffer(nil, 2<<20)
	for n := 1; s.Scan(); n++ {
		line := strings.TrimRight(s.Text(), "\r")
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		if err := setVar(line, lookup, env); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return s.Err()
}

func setVar(v string, lookup func(string) (string, bool), env map[string]string) error {
	name, value, given := strings.Cut(v, "=")
	if name == "" || strings.ContainsAny(name, " \t") {
		return fmt.Errorf("%q is no variable name", name)
	}
	if !given {
		if value, given = lookup(name); !given {
			return fmt.Errorf("%s is not set here, so it has no value to pass on", name)
		}
	}
	env[name] = value
	return nil
}
