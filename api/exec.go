package api

import (
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// MaxScriptBytes bounds a shell command: agents send whole files as heredocs.
const MaxScriptBytes = 16 << 20

const maxArgvBytes = 1 << 20

// OnDisconnect says what happens to a command whose client goes away.
type OnDisconnect string

// What may happen to it.
const (
	DisconnectKill OnDisconnect = "kill"
	DisconnectKeep OnDisconnect = "keep"
)

// ExecRequest is a command to run in a VM. Exactly one of Argv, Script and Shell is set.
type ExecRequest struct {
	Argv []string `json:"argv,omitempty"`
	// Script is run by `/bin/sh`, or by a login shell (bash) when Login is set.
	Script string `json:"script,omitempty"`
	Login  bool   `json:"login,omitempty"`
	// Shell is the user's own login shell.
	Shell bool `json:"shell,omitempty"`

	Env  map[string]string `json:"env,omitempty"`  // over the VM's own
	Cwd  string            `json:"cwd,omitempty"`  // default: the VM's workdir, else the user's home
	User string            `json:"user,omitempty"` // name or uid[:gid]; default: the VM's user, else root

	Stdin        bool         `json:"stdin,omitempty"`         // false: /dev/null
	TimeoutMs    int64        `json:"timeout_ms,omitempty"`    // then it is killed with all that it started; 0 = never
	OnDisconnect OnDisconnect `json:"on_disconnect,omitempty"` // default: kill
	// TTY gives the command a terminal; nil: pipes.
	TTY *TTY `json:"tty,omitempty"`
	// Main marks the command of `run -d`: its output is kept in the VM's output.log.
	Main bool `json:"main,omitempty"`
}

// Validate refuses a request that no guest could run.
func (r ExecRequest) Validate() error {
	given := 0
	for _, there := range []bool{len(r.Argv) > 0, r.Script != "", r.Shell} {
		if there {
			given++
		}
	}
	if given != 1 {
		return errdefs.Invalid.Errorf("exec: give a command, either as arguments or as a script, or ask for a shell")
	}
	if len(r.Script) > MaxScriptBytes {
		return errdefs.Invalid.Errorf("exec: the script has %d bytes, more than %d", len(r.Script), MaxScriptBytes).
			WithRemedy("copy it into the VM (smolvm cp FILE ID:/tmp/), and run it there")
	}
	n := 0
	for _, a := range r.Argv {
		if strings.Contains(a, "\x00") {
			return errdefs.Invalid.Errorf("exec: an argument contains a NUL byte")
		}
		n += len(a) + 1
	}
	if n > maxArgvBytes {
		return errdefs.Invalid.Errorf("exec: %d bytes of arguments are more than %d", n, maxArgvBytes).
			WithRemedy("send the data on standard input or as a script")
	}
	if len(r.Argv) > 0 && r.Argv[0] == "" {
		return errdefs.Invalid.Errorf("exec: the command's name is empty")
	}
	if r.Cwd != "" && !strings.HasPrefix(r.Cwd, "/") {
		return errdefs.Invalid.Errorf("cwd: %q is not absolute", r.Cwd)
	}
	if r.TimeoutMs < 0 {
		return errdefs.Invalid.Errorf("timeout: %d ms is negative", r.TimeoutMs)
	}
	switch r.OnDisconnect {
	case "", DisconnectKill, DisconnectKeep:
	default:
		return errdefs.Invalid.Errorf("on_disconnect: %q is neither kill nor keep", r.OnDisconnect)
	}
	return ValidateEnv(r.Env)
}

// ExecResult is how a command ended.
type ExecResult struct {
	// ExitCode is the command's own; 128+n when signal n ended it; 124 after a timeout; 126 not executable; 127 not found.
	ExitCode int `json:"exit_code"`
	// Signal names the signal that ended it ("SIGKILL"), else "".
	Signal   string `json:"signal,omitempty"`
	TimedOut bool   `json:"timed_out,omitempty"`
	// Error says why it could not be started (ExitCode 126 or 127), else "".
	Error string `json:"error,omitempty"`
	// GuestMicros is the time in the guest from fork to exit.
	GuestMicros int64 `json:"guest_us,omitempty"`
}

// ProcessInfo tells of a command that was started.
type ProcessInfo struct {
	ExecID string `json:"exec_id"`
	PID    int    `json:"pid"` // in the guest
}
