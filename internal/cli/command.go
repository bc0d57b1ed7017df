package cli

import (
	"context"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli/session"
	"github.com/smolvm/smolvm/internal/cli/terminal"
)

// guestExec runs a command with our streams and returns an error that carries its exit code.
func (a *app) guestExec(ctx context.Context, g Guest, id string, req api.ExecRequest, keys terminal.Keys) error {
	return a.session(id, a.json, keys).Run(ctx, g, req)
}

// session is what a command in a VM gets of us.
func (a *app) session(id string, json bool, keys terminal.Keys) session.Session {
	return session.Session{Stdin: a.Stdin, Stdout: a.Stdout, Stderr: a.Stderr, Signals: a.sig, VM: id, JSON: json, Keys: keys}
}
