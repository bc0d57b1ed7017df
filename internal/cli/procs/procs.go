// Package procs holds the commands about what runs in a VM: ps, attach, wait, kill, top.
//
// Layer: part of the front cli. It may import lifecycle, api, errdefs, and the parts of cli below it.
package procs

import (
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/session"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/terminal"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// Guest is the way into a running VM.
type Guest interface {
	session.Runner
	session.Attacher
	Viewer
	io.Closer
}

// Viewer tells of the commands in a VM, and ends them.
type Viewer interface {
	Processes(ctx context.Context) ([]api.Process, error)
	Process(ctx context.Context, process string) (api.Process, error)
	Wait(ctx context.Context, process string) (api.ExecResult, error)
	Signal(ctx context.Context, process string, signal int, all bool) error
}

// Env is what the commands need of the program.
type Env struct {
	Connect func(ctx context.Context, id string) (Guest, error)
	// Session returns our terminal and streams.
	Session func(vm string, json bool, keys terminal.Keys) session.Session
	// Watch passes VMs' events on.
	Watch func(ctx context.Context, o lifecycle.EventsOptions, f func(api.Event) error) error
	// List lists VMs, as ls does.
	List func(ctx context.Context, all, quiet bool, out *format.Flags) error
	// IDs completes ids of VMs that run, for the first argument.
	IDs cobra.CompletionFunc
	// Args wants between low and high arguments.
	Args func(low, high int) cobra.PositionalArgs
	// GuestCommand marks a command whose exit code is that of one in a guest.
	GuestCommand map[string]string
}

// Commands returns the commands.
func (e Env) Commands() []*cobra.Command {
	return []*cobra.Command{e.ps(), e.attach(), e.wait(), e.kill(), e.top()}
}

// on connects to the VM that the first argument names.
func (e Env) on(cmd *cobra.Command, id string) (Guest, error) {
	if err := api.ValidateID(id); err != nil {
		return nil, err
	}
	return e.Connect(cmd.Context(), id)
}

// complete completes a VM's id, and then ids of its commands.
func (e Env) complete(limit int, ended bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, have []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(have) == 0 {
			return e.IDs(cmd, have, begun)
		}
		if limit >= 0 && len(have) >= limit {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		g, err := e.on(cmd, have[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		defer func() { _ = g.Close() }()
		all, err := g.Processes(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []cobra.Completion
		for _, p := range all {
			if (ended || p.Result == nil) && !slices.Contains(have, p.ExecID) {
				names = append(names, cobra.CompletionWithDesc(show.Cell(p.ExecID), show.Cell(p.Command)))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func (e Env) ps() *cobra.Command {
	var all, quiet bool
	cmd := &cobra.Command{
		Use:   "ps [flags] [ID]",
		Short: "List the commands in a VM",
		Long: `Ps lists the commands that were started in a VM and run, with -a also those that ended and are not forgotten yet.
Each has an id, for "smolvm attach", "wait" and "kill". Without a VM it lists VMs, as "smolvm ls" does.`,
		Example:           "  smolvm ps web\n  smolvm ps -a web --json",
		GroupID:           "run",
		Args:              e.Args(0, 1),
		ValidArgsFunction: e.complete(1, false),
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "also those that have ended")
	f.BoolVarP(&quiet, "quiet", "q", false, "ids only")
	out := format.Add(cmd, "print everything as JSON", api.Process{}, api.Sandbox{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return e.List(cmd.Context(), all, quiet, out)
		}
		g, err := e.on(cmd, args[0])
		if err != nil {
			return err
		}
		defer func() { _ = g.Close() }()
		procs, err := g.Processes(cmd.Context())
		if err != nil {
			return err
		}
		if !all {
			procs = slices.DeleteFunc(procs, func(p api.Process) bool { return p.Result != nil })
		}
		return out.Print(cmd.OutOrStdout(), procs, func() error {
			if !quiet {
				return table(cmd.OutOrStdout(), procs, time.Now())
			}
			for _, p := range procs {
				if _, err := io.WriteString(cmd.OutOrStdout(), show.Cell(p.ExecID)+"\n"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}

// table prints the commands for people.
func table(w io.Writer, procs []api.Process, now time.Time) error {
	t := show.Table(w, "PROC", "PID", "USER", "STATE", "AGE", "OUTPUT", "KIND", "COMMAND")
	for _, p := range procs {
		var kind []string
		for word, is := range map[string]bool{"main": p.Main, "detached": p.Detached && !p.Main, "tty": p.TTY} {
			if is {
				kind = append(kind, word)
			}
		}
		slices.Sort(kind)
		show.Row(t, p.ExecID, strconv.Itoa(p.PID), p.User, state(p), show.Age(p.Started, now),
			units.BytesSize(float64(p.OutputBytes)), strings.Join(kind, ","), p.Command)
	}
	return t.Flush()
}

func state(p api.Process) string {
	if p.Result == nil {
		return "running"
	}
	return "exited " + strconv.Itoa(p.Result.ExitCode)
}

func (e Env) attach() *cobra.Command {
	var req api.AttachRequest
	var noStdin, proxy, json bool
	var keys terminal.Keys
	_ = keys.Set(terminal.DetachKeys)
	cmd := &cobra.Command{
		Use:   "attach [flags] ID [PROC]",
		Short: "Join a command that runs in a VM",
		Long: `Attach shows what is kept of a command's output, then what it prints, and passes our input on where the command has one.
PROC is its id from "smolvm ps", or the beginning of it; without it, the command of "smolvm run -d", or the only one that
runs. Any number may attach. Output that is not kept any more is counted.

A command on a terminal is left with the detach keys and goes on. Signals to us go to a command without terminal. The
exit code is the command's.`,
		Example: `  smolvm attach web
  smolvm attach web 3f2a --no-stdin
  smolvm attach web 3f2a --no-follow --offset 4096 --json`,
		GroupID:           "run",
		Annotations:       e.GuestCommand,
		Args:              e.Args(1, 2),
		ValidArgsFunction: e.complete(2, true),
	}
	f := cmd.Flags()
	f.Uint64Var(&req.Offset, "offset", 0, "begin after so many `BYTES` of its output")
	f.BoolVar(&req.NoFollow, "no-follow", false, "only what it has printed; do not wait for more")
	f.BoolVar(&noStdin, "no-stdin", false, "do not pass our input on")
	f.BoolVar(&proxy, "sig-proxy", true, "pass the first signal on, where the command has no terminal of ours")
	f.Var(&keys, "detach-keys", "the keys that leave it")
	f.BoolVar(&json, "json", false, "print the outcome and the output as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		g, err := e.on(cmd, args[0])
		if err != nil {
			return err
		}
		defer func() { _ = g.Close() }()
		p, err := g.Process(cmd.Context(), proc(args))
		if err != nil {
			return err
		}
		req.Stdin = !noStdin
		s := e.Session(args[0], json, keys)
		return s.Left(s.Attach(cmd.Context(), g, p, req, proxy))
	}
	return cmd
}

func proc(args []string) string {
	if len(args) < 2 {
		return ""
	}
	return args[1]
}

func (e Env) kill() *cobra.Command {
	var name string
	var all bool
	cmd := &cobra.Command{
		Use:   "kill [flags] ID [PROC...]",
		Short: "End commands in a VM, or send them a signal",
		Long: `Kill ends commands with everything that they started; with -s it sends them another signal than KILL, those of a
terminal's keys to the process group, others to the process, or with --all to everything. Without PROC it is the command
of "smolvm run -d", or the only one that runs. The VM itself is ended by "smolvm stop".`,
		Example:           "  smolvm kill web 3f2a\n  smolvm kill -s HUP web",
		GroupID:           "run",
		Args:              e.Args(1, -1),
		ValidArgsFunction: e.complete(-1, false),
	}
	f := cmd.Flags()
	f.StringVarP(&name, "signal", "s", "KILL", "this `SIGNAL`: a name or a number")
	f.BoolVar(&all, "all", false, "to everything that the command started")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		sig, err := signalOf(name)
		if err != nil {
			return err
		}
		g, err := e.on(cmd, args[0])
		if err != nil {
			return err
		}
		defer func() { _ = g.Close() }()
		names := args[1:]
		if len(names) == 0 {
			names = []string{""}
		}
		for _, name := range names {
			p, err := g.Process(cmd.Context(), name)
			if err == nil {
				err = g.Signal(cmd.Context(), p.ExecID, sig, all || sig == int(syscall.SIGKILL))
			}
			if err != nil {
				return err
			}
			if _, err := io.WriteString(cmd.OutOrStdout(), show.Cell(p.ExecID)+"\n"); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// signalOf is the number of a signal.
func signalOf(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= 64 {
		return n, nil
	}
	upper := strings.ToUpper(name)
	if n := unix.SignalNum("SIG" + strings.TrimPrefix(upper, "SIG")); n != 0 {
		return int(n), nil
	}
	return 0, errdefs.Invalid.Errorf("kill: there is no signal %q", name).WithRemedy("smolvm kill --help")
}
