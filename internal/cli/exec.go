package cli

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/change"
	"github.com/smolvm/smolvm/internal/cli/images"
	"github.com/smolvm/smolvm/internal/cli/manual"
	"github.com/smolvm/smolvm/internal/cli/procs"
	"github.com/smolvm/smolvm/internal/cli/session"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/terminal"
	"github.com/smolvm/smolvm/internal/cli/tidy"
	"github.com/smolvm/smolvm/internal/cli/value"
	"github.com/smolvm/smolvm/internal/cli/watch"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

func (a *app) execCommand() *cobra.Command {
	var c session.Flags
	var env value.Env
	var dir, user string
	cmd := &cobra.Command{
		Use:   "exec [flags] ID [--] COMMAND [ARG...]",
		Short: "Run a command in a running VM",
		Long: `Exec runs a command in a VM that runs, with our standard output and error. Flags may stand before or after the id;
they end at the command's name. The command ends with us: when this program is killed, so is the command. What it
left in the background lives on.

With -it it has our terminal and is left by the detach keys. With -d its id is printed once it runs, and it goes on by
itself, for "smolvm attach", "wait" and "kill".

Exit codes are those of "smolvm run".`,
		Example: `  smolvm exec web -- ls -l /srv
  smolvm exec web -c 'cd /srv && git log --oneline | head'
  smolvm exec -it web -- htop
  smolvm exec -d web -- ./server
  smolvm exec -i web -- tar -x -C /srv <site.tar
  smolvm exec --timeout 30s -u nobody -w /tmp web -- ./job
  smolvm exec --script setup.sh web`,
		GroupID:           "run",
		Annotations:       map[string]string{guestCommand: "1"},
		ValidArgsFunction: a.completeIDs(false, 1),
	}
	c.Add(cmd)
	f := cmd.Flags()
	env.Flags(f)
	f.StringVarP(&dir, "workdir", "w", "", "`DIR` where it runs (default: the VM's, else the user's home)")
	f.StringVarP(&user, "user", "u", "", "`USER` who runs it: name or uid[:gid] (default: the VM's, else root)")
	f.BoolVarP(&c.Detach, "detach", "d", false, "print the command's id once it runs, and leave it running")
	f.BoolVar(&a.json, "json", false, "print the outcome and the output as JSON")
	cmd.RunE = func(cmd *cobra.Command, argv []string) error {
		id, argv, err := idAndRest(cmd, argv)
		if err != nil {
			return err
		}
		if f := cmd.Flags().Lookup("help"); f != nil && f.Changed { // after the id
			return cmd.Help()
		}
		req, err := a.session("", a.json, nil).Request(cmd, &c, argv)
		if err != nil {
			return err
		}
		if req.Env, err = env.Resolve(os.LookupEnv); err != nil {
			return err
		}
		req.Cwd, req.User = dir, user
		if err := req.Validate(); err != nil {
			return err
		}
		return a.exec(cmd, id, req, &c)
	}
	return cmd
}

// idAndRest takes the id, and the flags after it: parsing ended there.
func idAndRest(cmd *cobra.Command, argv []string) (string, []string, error) {
	if len(argv) == 0 {
		return "", nil, errdefs.Invalid.Errorf("exec: the VM's id is missing: %s", cmd.UseLine()).WithRemedy("smolvm ls")
	}
	id := argv[0]
	if err := api.ValidateID(id); err != nil {
		return "", nil, err
	}
	// Parsing again keeps what was found before the id.
	if err := cmd.Flags().Parse(argv[1:]); err != nil {
		return "", nil, cmd.FlagErrorFunc()(cmd, err)
	}
	return id, cmd.Flags().Args(), nil
}

func (a *app) exec(cmd *cobra.Command, id string, req api.ExecRequest, c *session.Flags) error {
	g, err := a.connect(cmd.Context(), id)
	if err != nil {
		return err
	}
	defer func() { _ = g.Close() }()
	if !c.Detach {
		return a.session(id, a.json, c.Keys).Left(a.guestExec(cmd.Context(), g, id, req, c.Keys))
	}
	req.OnDisconnect = api.DisconnectKeep
	p, err := g.StartDetached(cmd.Context(), req)
	if err != nil {
		return err
	}
	if a.json {
		return show.JSON(a.Stdout, p)
	}
	return a.println("%s", show.Cell(p.ExecID))
}

// connect returns the way into a VM.
func (a *app) connect(ctx context.Context, id string) (Guest, error) {
	s, err := a.open(false)
	if err != nil {
		return nil, err
	}
	return s.VMs.Connect(ctx, id)
}

func (a *app) shellCommand() *cobra.Command {
	var c session.Flags
	var env value.Env
	var dir, user string
	_ = c.Keys.Set(terminal.DetachKeys)
	cmd := &cobra.Command{
		Use:   "shell [flags] ID",
		Short: "Open a shell in a running VM",
		Long: `Shell is the login shell of a user in a VM, on our terminal. The detach keys leave it running, for "smolvm attach". Where
our input is no terminal, the shell reads commands from it.

The exit code is the shell's.`,
		Example:           "  smolvm shell web\n  smolvm shell -u nobody -w /tmp web",
		GroupID:           "run",
		Annotations:       map[string]string{guestCommand: "1"},
		Args:              value.Args(1, 1),
		ValidArgsFunction: a.completeIDs(false, 1),
	}
	f := cmd.Flags()
	env.Flags(f)
	f.StringVarP(&dir, "workdir", "w", "", "`DIR` where it begins (default: the VM's, else the user's home)")
	f.StringVarP(&user, "user", "u", "", "`USER` whose shell it is: name or uid[:gid] (default: the VM's, else root)")
	f.Var(&c.Keys, "detach-keys", "the keys that leave it")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		req := api.ExecRequest{Shell: true, Stdin: true, Cwd: dir, User: user, OnDisconnect: api.DisconnectKill}
		var err error
		if req.Env, err = env.Resolve(os.LookupEnv); err != nil {
			return err
		}
		if err := errors.Join(api.ValidateID(ids[0]), req.Validate()); err != nil {
			return err
		}
		if terminal.Is(a.Stdin) {
			if req.TTY, err = session.TTY(a.Stdin, a.Stdout, true); err != nil {
				return err
			}
		}
		return a.exec(cmd, ids[0], req, &c)
	}
	return cmd
}

// processCommands are about what runs in a VM.
func (a *app) processCommands() []*cobra.Command {
	return procs.Env{
		Connect: func(ctx context.Context, id string) (procs.Guest, error) {
			g, err := a.connect(ctx, id)
			if err != nil {
				return nil, err
			}
			return g, nil
		},
		Watch: func(ctx context.Context, o lifecycle.EventsOptions, f func(api.Event) error) error {
			s, err := a.open(false)
			if err != nil {
				return err
			}
			return s.VMs.Watch(ctx, o, f)
		},
		Session: a.session, List: a.list, IDs: a.completeIDs(false, 1), Args: value.Args,
		GuestCommand: map[string]string{guestCommand: "1"},
	}.Commands()
}

// moreCommands are those that lie in packages of their own: they tell what happens, change what VMs are, and make room.
func (a *app) moreCommands() []*cobra.Command {
	all := watch.Env{VMs: opened(a, func(s Service) watch.VMs { return s.VMs }), IDs: a.completeIDs, Args: value.Args}.Commands()
	all = append(all, change.Env{VMs: opened(a, func(s Service) change.VMs { return s.VMs }), IDs: a.completeIDs, Args: value.Args}.Commands()...)
	all = append(all, images.Env{
		Images: opened(a, func(s Service) images.Store { return s.Images }), Progress: a.progress, Stdout: a.Stdout, Stderr: a.Stderr,
		Args: value.Args, Group: a.knownCommand, Names: a.completeImages,
	}.Command(), a.configCommand(), manual.Command(value.Args))
	return append(all, tidy.Env{Pruner: opened(a, func(s Service) tidy.Pruner { return s.Pruner }), Stdin: a.Stdin, Args: value.Args}.Prune())
}

// opened returns what opens the service and picks a part of it.
func opened[T any](a *app, pick func(Service) T) func() (T, error) {
	return func() (T, error) {
		s, err := a.open(false)
		return pick(s), err
	}
}
