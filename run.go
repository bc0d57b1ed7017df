package smolvm

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// Result is how a command ended, and what it printed.
type Result struct {
	ExitCode int    // the command's own; 128+n when signal n ended it; 124 after a timeout; 126 not executable; 127 not found
	Signal   string // that ended it, "" without
	TimedOut bool
	Error    string // why it could not be started, "" if it was
	Stdout   []byte
	Stderr   []byte
	// Truncated says that it printed more than was kept, which is 16 MiB of each output.
	Truncated bool
	Duration  time.Duration
}

// OK reports whether the command succeeded.
func (r *Result) OK() bool { return r.ExitCode == 0 }

// Run runs a program to its end. A program that fails is a result; an error says that SmolVM failed. The end of ctx kills the
// program and all that it started.
func (vm *VM) Run(ctx context.Context, name string, args ...string) (*Result, error) {
	return vm.Do(ctx, api.CommandRequest{ExecRequest: api.ExecRequest{Argv: append([]string{name}, args...)}})
}

// Shell runs a script of a login shell to its end, as Run does.
func (vm *VM) Shell(ctx context.Context, script string) (*Result, error) {
	return vm.Do(ctx, api.CommandRequest{ExecRequest: api.ExecRequest{Script: script, Login: true}})
}

// Do runs a command of which more is said, as Run does.
func (vm *VM) Do(ctx context.Context, req api.CommandRequest) (*Result, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	if err := vm.ready(ctx); err != nil {
		return nil, err
	}
	req.Base64 = true
	var res api.CommandResult
	if err := vm.ask(ctx, http.MethodPost, "/exec", req, &res); err != nil {
		return nil, err
	}
	out, oerr := base64.StdEncoding.DecodeString(res.Stdout)
	errs, eerr := base64.StdEncoding.DecodeString(res.Stderr)
	if err := errors.Join(oerr, eerr); err != nil {
		return nil, errdefs.Unavailable.Errorf("the server's answer is malformed: %w", err)
	}
	return &Result{
		ExitCode: res.ExitCode, Signal: res.Signal, TimedOut: res.TimedOut, Error: res.Error, Stdout: out, Stderr: errs,
		Truncated: res.StdoutTruncated || res.StderrTruncated, Duration: time.Duration(res.DurationMs * float64(time.Millisecond)),
	}, nil
}
