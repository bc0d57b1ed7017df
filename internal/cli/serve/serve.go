// Package serve holds the command that answers the HTTP API.
//
// Layer: part of the front cli. It may import api, errdefs.
package serve

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/errdefs"
)

// Options say where to answer.
type Options struct {
	Socket        string // path of a unix socket
	ExitWithStdin bool   // end when standard input does
}

// Env is what the command needs of the program.
type Env struct {
	Serve func(ctx context.Context, o Options) error
	Args  func(low, high int) cobra.PositionalArgs
}

// Command returns the command.
func (e Env) Command() *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use:   "serve [flags]",
		Short: "Answer the HTTP API",
		Long: `Serve answers the HTTP API on a unix socket that only our own user may connect to. It holds no state: it may end at any
time, and several may run.`,
		Example:           "  smolvm serve --socket /run/user/1000/smolvm.sock",
		GroupID:           "more",
		Args:              e.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&o.Socket, "socket", "", "`PATH` of the unix socket")
	cmd.Flags().BoolVar(&o.ExitWithStdin, "exit-with-stdin", false, "end when standard input does")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Socket == "" {
			return errdefs.Invalid.Errorf("serve: --socket is missing").WithRemedy("smolvm serve --socket PATH")
		}
		return e.Serve(cmd.Context(), o)
	}
	return cmd
}
