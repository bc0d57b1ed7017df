// Package cli is the command line: it parses, calls, prints. What happens is decided below it; what a command says and
// with which code it exits is decided here.
//
// Layer: front. It may import lifecycle, api, errdefs, internal/sys.
package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/completion"
	"github.com/smolvm/smolvm/internal/cli/config"
	"github.com/smolvm/smolvm/internal/cli/engines"
	"github.com/smolvm/smolvm/internal/cli/env"
	"github.com/smolvm/smolvm/internal/cli/figures"
	"github.com/smolvm/smolvm/internal/cli/interrupt"
	"github.com/smolvm/smolvm/internal/cli/network"
	"github.com/smolvm/smolvm/internal/cli/port"
	"github.com/smolvm/smolvm/internal/cli/secret"
	"github.com/smolvm/smolvm/internal/cli/serve"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/ssh"
	"github.com/smolvm/smolvm/internal/cli/value"
)

// exitFailed is our own failure where the exit code is otherwise that of a guest's command.
const exitFailed = 125

// App is the program as main puts it together.
type App struct {
	Version api.Version
	Stdin   *os.File
	Stdout  *os.File
	Stderr  *os.File
	// Open is called by each command that needs more than its arguments.
	Open func(o OpenOptions) (Service, error)
	// Doctor looks at the host.
	Doctor func(ctx context.Context, o OpenOptions) ([]api.Check, error)
	// Engines is what shows and installs them; it is given what finding the options returned.
	Engines func(o OpenOptions, err error) (engines.Service, error)
	// Bench measures. Without it there is no such command.
	Bench func(ctx context.Context, o OpenOptions, b BenchOptions) ([]api.Suite, error)
	// Serve answers the HTTP API.
	Serve func(ctx context.Context, o OpenOptions, s serve.Options) error
	// Setenv sets a variable of this process and of those that it starts.
	Setenv func(name, value string) error
	// BenchSuites names what there is to measure, each with a sentence.
	BenchSuites [][2]string
}

// BenchOptions say what to measure.
type BenchOptions = figures.Options

// app is one run of the program.
type app struct {
	App
	sig *interrupt.Signals

	home    string
	debug   bool
	verbose bool
	json    bool
	file    *config.File // once it was read
}

// guestCommand marks commands whose exit codes are those of what they run in the guest.
const guestCommand = "guest"

// Main runs the program with the given arguments and returns its exit code.
func (a App) Main(ctx context.Context, args []string) int {
	run := &app{App: a}
	run.sig = interrupt.Watch(ctx)
	defer run.sig.Close()
	root := run.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(run.sig.Context())
	return run.finish(cmd, err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "smolvm",
		Short: "microVMs for programs that nobody has read",
		Long: `SmolVM runs programs in microVMs: each a machine of its own with a real Debian in it, gone when it is done.

VMs have ids: the name given with --name, or one that is made up. "smolvm run" makes a VM for one command and removes
it afterwards; "smolvm create" and "smolvm start" make one that stays.`,
		Example: `  smolvm run -- python3 -c 'print(6*7)'
  smolvm doctor`,
		Version:       a.Version.Version,
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
		Args:                       a.knownCommand,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.SetVersionTemplate("smolvm {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return errdefs.Invalid.Errorf("%s: %w", cmd.Name(), err).WithRemedy("%s --help", cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&a.home, "home", "", "`DIR` where VMs and images are (default $SMOLVM_HOME, else ~/.local/share/smolvm)")
	f.BoolVar(&a.debug, "debug", os.Getenv("SMOLVM_DEBUG") != "" && os.Getenv("SMOLVM_DEBUG") != "0", "log what happens to stderr (or SMOLVM_DEBUG=1)")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "say what takes long, also when stderr is no terminal")
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run things:"}, &cobra.Group{ID: "vm", Title: "Manage VMs:"}, &cobra.Group{ID: "more", Title: "More:"})
	root.SetHelpCommandGroupID("more")
	root.SetCompletionCommandGroupID("more")
	root.AddCommand(a.runCommand(), a.execCommand(), a.shellCommand(), a.cpCommand(), a.logsCommand())
	root.AddCommand(a.processCommands()...)
	root.AddCommand(a.moreCommands()...)
	root.AddCommand(a.createCommand(), a.startCommand(), a.stopCommand(), a.pauseCommand(), a.unpauseCommand(), a.rmCommand(), a.lsCommand(), a.inspectCommand(), network.Command(a.netFront()), port.Command(a.portFront()), a.envFront().Command(), a.secretFront().Command())
	root.AddCommand(ssh.Commands(a.sshFront())...)
	engineFront := engines.Front{Args: value.Args, Group: a.knownCommand, Stdout: a.Stdout, Open: func() (engines.Service, error) { return a.Engines(a.options(false)) }}
	root.AddCommand(engines.Command(engineFront), a.doctorCommand(), a.versionCommand())
	if a.Bench != nil {
		root.AddCommand(a.benchCommand())
	}
	root.AddCommand(serve.Env{Args: value.Args, Serve: a.serve, Stdout: a.Stdout, Home: func() (string, error) {
		o, err := a.options(false)
		return o.Home, err
	}}.Commands()...)
	completion.Mend(root)
	return root
}

// knownCommand refuses what is no command, and helps with what was meant.
func (a *app) knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := errdefs.Invalid.Errorf("there is no command %q", strings.TrimPrefix(cmd.CommandPath()+" "+args[0], cmd.Root().Name()+" "))
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return err.WithRemedy("%s %s", cmd.CommandPath(), strings.Join(near, ", or "+cmd.CommandPath()+" "))
	}
	return err.WithRemedy("%s --help", cmd.CommandPath())
}

// options says where the command works; boots whether it may start VMs.
func (a *app) options(boots bool) (OpenOptions, error) {
	if _, err := a.config(); err != nil {
		return OpenOptions{}, err
	}
	home := a.home
	if home == "" {
		home = os.Getenv("SMOLVM_HOME")
	}
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return OpenOptions{}, errdefs.Host.Errorf("find the home directory: %w", err).WithRemedy("export SMOLVM_HOME=/some/directory")
		}
		home = filepath.Join(user, ".local", "share", "smolvm")
	}
	home, err := filepath.Abs(home)
	if err != nil {
		return OpenOptions{}, errdefs.Host.Errorf("find %s: %w", home, err)
	}
	a.log().Debug("smolvm "+a.Version.Version, "commit", a.Version.Commit, "home", home, "configuration", a.file.Name)
	return OpenOptions{Home: home, Boots: boots, Log: a.log()}, nil
}

// config reads the user's file of defaults, once, and sets the variables that it stands in for.
func (a *app) config() (config.File, error) {
	if a.file != nil {
		return *a.file, nil
	}
	f, err := config.Load(os.Getenv)
	if err == nil {
		err = f.SetEnv(os.Getenv, a.Setenv)
	}
	if err == nil {
		a.file = &f
	}
	return f, err
}

func (a *app) serve(ctx context.Context, s serve.Options) error {
	o, err := a.options(true)
	if err != nil {
		return err
	}
	return a.Serve(ctx, o, s)
}

func (a *app) configCommand() *cobra.Command {
	return config.Env{Getenv: os.Getenv, Args: value.Args, Group: a.knownCommand, Check: func(f config.File) error {
		if err := f.SetEnv(os.Getenv, a.Setenv); err != nil {
			return err
		}
		a.file = &f
		scratch := &cobra.Command{Use: "run"}
		if _, err := a.vmFlags(scratch).config(scratch); err != nil {
			return err
		}
		_, err := a.open(false)
		return err
	}}.Command()
}

func (a *app) log() *slog.Logger {
	if a.debug {
		return slog.New(slog.NewTextHandler(a.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(show.Warnings(a.Stderr))
}

// open returns the service for a command.
func (a *app) open(boots bool) (Service, error) {
	o, err := a.options(boots)
	if err != nil {
		return Service{}, err
	}
	return a.Open(o)
}

func (a *app) netFront() network.Front {
	return network.Front{Args: value.Args, Group: a.knownCommand, IDs: a.completeIDs(true, 1), Stdout: a.Stdout, Version: a.Version.Version, Open: func() (network.VMs, error) {
		s, err := a.open(false)
		return s.VMs, err
	}}
}

func (a *app) envFront() env.Front {
	return env.Front{Args: value.Args, Group: a.knownCommand, IDs: a.completeIDs(true, 1), Open: func() (env.VMs, error) {
		s, err := a.open(false)
		return s.VMs, err
	}}
}

func (a *app) secretFront() secret.Front {
	return secret.Front{Args: value.Args, Group: a.knownCommand, IDs: a.completeIDs(true, 1), Open: func() (secret.VMs, error) {
		s, err := a.open(false)
		return s.VMs, err
	}}
}

func (a *app) portFront() port.Front {
	return port.Front{
		Args: value.Args, Group: a.knownCommand, IDs: a.completeIDs, SSH: a.sshFront().Prepare, Stdout: a.Stdout, Stderr: a.Stderr,
		Open: func() (port.VMs, error) {
			s, err := a.open(false)
			return s.VMs, err
		},
		Connect: func(ctx context.Context, id string) (port.Guest, error) {
			s, err := a.open(false)
			if err != nil {
				return nil, err
			}
			return s.VMs.Connect(ctx, id)
		},
	}
}

func (a *app) sshFront() ssh.Front {
	return ssh.Front{Args: value.Args, IDs: a.completeIDs(false, 1), Stdin: a.Stdin, Stdout: a.Stdout, Connect: func(ctx context.Context, id string) (ssh.Guest, error) {
		s, err := a.open(false)
		if err != nil {
			return nil, err
		}
		return s.VMs.Connect(ctx, id)
	}, Open: func() (string, ssh.VMs, error) {
		o, err := a.options(false)
		if err != nil {
			return "", nil, err
		}
		s, err := a.Open(o)
		return o.Home, s.VMs, err
	}}
}

// finish prints what failed and returns the exit code.
func (a *app) finish(cmd *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	if a.sig.CtrlC() && show.IsTerminal(a.Stderr) {
		_, _ = fmt.Fprintln(a.Stderr) // the terminal shows ^C, and the shell's prompt would stand behind it
	}
	if e, ok := errors.AsType[interrupt.ExitError](err); ok {
		return e.Code
	}
	// What a signal interrupted fails with whatever it was doing; the signal is the reason.
	if e, ok := errors.AsType[interrupt.ExitError](context.Cause(a.sig.Context())); ok {
		return e.Code
	}
	show.Report(a.Stderr, err)
	if cmd != nil && cmd.Annotations[guestCommand] != "" {
		return exitFailed
	}
	return errdefs.ClassOf(err).ExitCode()
}

// progress shows how far something is.
func (a *app) progress() *show.Progress {
	return show.NewProgress(a.Stderr, a.verbose, false)
}

// println prints a line of output.
func (a *app) println(format string, args ...any) error {
	_, err := fmt.Fprintf(a.Stdout, format+"\n", args...)
	return err
}

// say prints a remark that is no output.
func (a *app) say(format string, args ...any) {
	_, _ = fmt.Fprintf(a.Stderr, "smolvm: "+format+"\n", args...)
}
