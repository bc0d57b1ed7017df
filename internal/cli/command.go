package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli/interrupt"
	"github.com/smolvm/smolvm/internal/cli/session"
	"github.com/smolvm/smolvm/internal/cli/terminal"
)

// guestExec runs a command with our streams and returns an error that carries its exit code.
func (a *app) guestExec(ctx context.Context, g Guest, id string, req api.ExecRequest, keys terminal.Keys) error {
	log, begun := a.log().With("vm", id), time.Now()
	log.Debug("running a command", "arguments", len(req.Argv), "script", len(req.Script), "stdin", req.Stdin, "tty", req.TTY != nil)
	err := a.session(id, a.json, keys).Run(ctx, g, req)
	log.Debug("the command is over", "outcome", outcome(err), "took", time.Since(begun))
	return err
}

// outcome is how a command ended, for the log.
func outcome(err error) string {
	if e, ok := errors.AsType[interrupt.ExitError](err); ok {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	if err != nil {
		return err.Error()
	}
	return "exit code 0"
}

// session is what a command in a VM gets of us.
func (a *app) session(id string, json bool, keys terminal.Keys) session.Session {
	return session.Session{Stdin: a.Stdin, Stdout: a.Stdout, Stderr: a.Stderr, Signals: a.sig, VM: id, JSON: json, Keys: keys}
}
