package command

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Spec is a command to run: Argv, or a shell command in Script or ScriptFile, or the user's login shell.
type Spec struct {
	ID         string
	Argv       []string
	Script     string
	ScriptFile *os.File // the shell reads it; for scripts too long for an argument
	Login      bool     // a login shell runs it
	Shell      bool     // the user's own login shell
	Env        map[string]string
	Dir        string
	User       string
	Stdin      bool // false: /dev/null
	Timeout    time.Duration
	Terminal   *Terminal // nil: pipes
	Detach     bool      // its input stays open for those who attach later
	Main       bool      // the command that the machine was made for
}

// Defaults are what all commands share: under what the Spec says.
type Defaults struct {
	Env  map[string]string
	Dir  string
	User string

	base map[string]string // of the system's, under Env
}

const (
	codeNotExecutable = 126
	codeNotFound      = 127
	codeTimeout       = 124
	codeSignal        = 128
)

// StartError is why a command could not be started, with the exit code that a shell would give.
type StartError struct {
	Code int
	Err  error
}

func (e *StartError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

func cannot(format string, args ...any) error {
	return &StartError{codeNotExecutable, fmt.Errorf(format, args...)}
}

// process is a Spec made ready for the kernel.
type process struct {
	path  string
	argv  []string
	env   []string
	dir   string
	user  user
	extra []*os.File

	terminal bool // its standard streams are one that it is to control
}

// prepare resolves everything that can be before the fork.
func prepare(s Spec, d Defaults, acc accounts) (*process, error) {
	name := s.User
	if name == "" {
		name = d.User
	}
	u, err := acc.lookup(name)
	if err != nil {
		return nil, cannot("%w", err)
	}
	p := &process{user: u, terminal: s.Terminal != nil}
	env := environment(u, d.base, d.Env, s.Env)
	if _, set := env["TERM"]; !set && s.Terminal != nil {
		env["TERM"] = s.Terminal.term()
	}
	for k, v := range env {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.Contains(v, "\x00") {
			return nil, cannot("environment variable %q is not valid", k)
		}
	}
	p.env = list(env)
	if p.dir, err = directory(s.Dir, d.Dir, u.home); err != nil {
		return nil, err
	}
	if s.Shell {
		p.path, p.argv = loginShell(u.shell)
		return p, nil
	}
	p.argv = s.argv()
	if s.ScriptFile != nil {
		p.extra = []*os.File{s.ScriptFile}
	}
	p.path, err = lookPath(p.argv[0], p.dir, env["PATH"])
	return p, err
}

// loginShell is how login(1) calls a shell: with a dash before its name.
func loginShell(shell string) (path string, argv []string) {
	if _, err := os.Stat(shell); err != nil {
		shell = "/bin/sh"
	}
	return shell, []string{"-" + filepath.Base(shell)}
}

// line tells of the command in a few words.
func (s Spec) line() string {
	text := strings.Join(s.Argv, " ")
	switch {
	case s.Shell:
		text = "(login shell)"
	case s.ScriptFile != nil:
		text = "(a long script)"
	case s.Script != "":
		text = s.Script
	}
	if len(text) > maxLine {
		text = text[:maxLine-len("…")] + "…"
	}
	return strings.ToValidUTF8(text, "")
}

// maxLine bounds a command's line.
const maxLine = 256

// scriptFD is where a child finds ScriptFile: after the three standard streams.
const scriptFD = "/proc/self/fd/3"

func (s Spec) argv() []string {
	if len(s.Argv) > 0 {
		return s.Argv
	}
	shell := []string{"/bin/sh"}
	if s.Login {
		shell = []string{"/bin/bash", "-l"}
		if _, err := os.Stat(shell[0]); err != nil {
			shell[0] = "/bin/sh"
		}
	}
	if s.ScriptFile != nil {
		return append(shell, scriptFD)
	}
	return append(shell, "-c", s.Script)
}

// environment is what u's command sees: the defaults and base, over them vm, over them own.
func environment(u user, base, vm, own map[string]string) map[string]string {
	env := map[string]string{
		"HOME":                      u.home,
		"USER":                      u.name,
		"LOGNAME":                   u.name,
		"SHELL":                     u.shell,
		"PATH":                      "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG":                      "C.UTF-8",
		"PIP_BREAK_SYSTEM_PACKAGES": "1",
		"DEBIAN_FRONTEND":           "noninteractive",
	}
	maps.Copy(env, base)
	maps.Copy(env, vm)
	maps.Copy(env, own)
	return env
}

// list is an environment as processes get it.
func list(env map[string]string) []string {
	entries := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		entries = append(entries, k+"="+env[k])
	}
	return entries
}

// directory picks the working directory: what was asked for must be there; a home that is missing is "/".
func directory(own, vm, home string) (string, error) {
	for _, dir := range []string{own, vm} {
		if dir == "" {
			continue
		}
		if !filepath.IsAbs(dir) {
			return "", cannot("working directory %q is not absolute", dir)
		}
		st, err := os.Stat(dir)
		if err != nil {
			return "", cannot("working directory: %w", err)
		}
		if !st.IsDir() {
			return "", cannot("working directory: %s is not a directory", dir)
		}
		return dir, nil
	}
	if st, err := os.Stat(home); err != nil || !st.IsDir() {
		return "/", nil
	}
	return home, nil
}

// lookPath finds name in path as a shell does, for a process in dir.
func lookPath(name, dir, path string) (string, error) {
	if name == "" {
		return "", &StartError{codeNotFound, errors.New("the command's name is empty")}
	}
	if strings.Contains(name, "/") {
		return name, nil // execve tells what is wrong
	}
	var found string
	for _, d := range filepath.SplitList(path) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		f := filepath.Join(d, name)
		st, err := os.Stat(f)
		if err != nil || st.IsDir() {
			continue
		}
		if st.Mode()&0o111 != 0 {
			return f, nil
		}
		found = f
	}
	if found != "" {
		return "", cannot("%s: permission denied", found)
	}
	return "", &StartError{codeNotFound, fmt.Errorf("%s: command not found", name)}
}

// startError turns a failed fork or execve into words and a shell's exit code.
func startError(p *process, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return cannot("%s: %w", p.argv[0], err)
	}
	code := codeNotExecutable
	if errors.Is(errno, fs.ErrNotExist) || errno == syscall.ENOTDIR {
		code = codeNotFound
		full := p.path
		if !filepath.IsAbs(full) {
			full = filepath.Join(p.dir, full)
		}
		if _, err := os.Stat(full); err == nil {
			return &StartError{code, fmt.Errorf("%s: its interpreter is missing", p.argv[0])}
		}
	}
	return &StartError{code, fmt.Errorf("%s: %w", p.argv[0], errno)}
}
