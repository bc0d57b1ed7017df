package procs

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

func (e Env) wait() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait [flags] ID [PROC...]",
		Short: "Wait for commands in a VM, and print their exit codes",
		Long: `Wait returns when the commands have ended, and prints the exit code of each. Without PROC it waits for the command of
"smolvm run -d", or the only one that runs; in a VM without these, until the VM has ended, which is 0 when that was asked
for, else 1. Of a VM that does not run any more, it is the exit code that its main command had.`,
		Example:           "  smolvm wait web\n  smolvm wait web 3f2a 77b1",
		GroupID:           "run",
		Args:              e.Args(1, -1),
		ValidArgsFunction: e.complete(-1, true),
	}
	out := format.Add(cmd, "print one JSON object per command", waitOutput{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		print := func(id string, res api.ExecResult) error {
			return out.Print(cmd.OutOrStdout(), waitOutput{id, res}, func() error {
				_, err := io.WriteString(cmd.OutOrStdout(), strconv.Itoa(res.ExitCode)+"\n")
				return err
			})
		}
		begun := time.Now()
		g, err := e.on(cmd, args[0])
		if errdefs.Is(err, errdefs.WrongState) && len(args) == 1 {
			res, err := e.ended(cmd.Context(), lifecycle.EventsOptions{IDs: args})
			if err != nil {
				return err
			}
			return print("", res)
		}
		if err != nil {
			return err
		}
		defer func() { _ = g.Close() }()
		names := args[1:]
		if len(names) == 0 {
			names = []string{""}
		}
		for _, name := range names {
			p, err := g.Process(cmd.Context(), name) // it keeps its id while we wait
			var res api.ExecResult
			switch {
			case err == nil:
				res, err = g.Wait(cmd.Context(), p.ExecID)
			case name == "" && (errdefs.Is(err, errdefs.NotFound) || errdefs.Is(err, errdefs.Invalid)):
				res, err = e.ended(cmd.Context(), lifecycle.EventsOptions{IDs: args, Since: begun, Follow: true})
			}
			if err == nil {
				err = print(p.ExecID, res)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// waitOutput is what --json prints of a command that ended.
type waitOutput struct {
	ExecID string `json:"exec_id,omitempty"` // none: the VM itself has ended
	api.ExecResult
}

// ended tells by a VM's events how it ended, or the main command that it had; with Follow, once it has.
func (e Env) ended(ctx context.Context, o lifecycle.EventsOptions) (api.ExecResult, error) {
	over := errors.New("it has ended")
	var res api.ExecResult
	main, failed := false, false
	err := e.Watch(ctx, o, func(ev api.Event) error {
		if ev.Type == "state" {
			failed = ev.State == api.StateError
		}
		code, cerr := strconv.Atoi(ev.Attrs["exit_code"])
		switch {
		case ev.Type == "state" && ev.State == api.StateStarting:
			main, res = false, api.ExecResult{}
		case ev.Attrs["main"] == "true" && cerr == nil:
			main, res = true, api.ExecResult{ExitCode: code, Signal: ev.Attrs["signal"]}
		case o.Follow && (ev.Type == "removed" || failed || ev.State == api.StateStopped):
			return over
		}
		return nil
	})
	if err != nil && !errors.Is(err, over) {
		return res, err
	}
	if !main && failed {
		res.ExitCode = 1
	}
	return res, nil
}
