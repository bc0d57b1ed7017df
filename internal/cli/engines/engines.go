// Package engines is `smolvm engine`: which engines there are, and how to get one; and the flag that picks one for a VM.
//
// Layer: front, part of cli. It may import lifecycle, api, errdefs, cli/show.
package engines

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// Variable picks the engine of VMs that name none.
const Variable = "SMOLVM_ENGINE"

// Flag adds --engine to a command that makes VMs.
func Flag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "engine", "", "the `ENGINE` that runs it: firecracker, qemu, or auto (default auto, or $"+Variable+")")
	_ = cmd.RegisterFlagCompletionFunc("engine", cobra.FixedCompletions([]string{"auto", "firecracker", "qemu"}, cobra.ShellCompDirectiveNoFileComp))
}

// Wanted is the engine that a flag names, or the environment where it names none.
func Wanted(flag string) string {
	if flag == "" {
		return os.Getenv(Variable)
	}
	return flag
}

// Service is what the commands need.
type Service interface {
	Probe(ctx context.Context) lifecycle.Probed
	Install(ctx context.Context, i api.EngineInstall, progress api.ProgressFunc) (api.InstalledEngine, error)
}

// Front is what the commands need of the program.
type Front struct {
	Open   func() (Service, error)
	Args   func(low, high int) cobra.PositionalArgs
	Group  cobra.PositionalArgs // of a command that only has others below it
	Stdout io.Writer
}

// Command is `engine` with all below it.
func Command(f Front) *cobra.Command {
	cmd := &cobra.Command{
		Use: "engine", Short: "Show and install what runs VMs",
		Example: "  smolvm engine ls\n  smolvm engine install firecracker", GroupID: "more",
		Args: f.Group, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(f.list(), f.install())
	return cmd
}

func (f Front) list() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls [flags]", Aliases: []string{"list"}, Short: "List the engines, and what they can do here", Args: f.Args(0, 0),
		Example: "  smolvm engine ls\n  smolvm engine ls --json",
	}
	out := format.Add(cmd, "print them as JSON", api.Engine{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := f.Open()
		if err != nil {
			return err
		}
		list := found(s.Probe(cmd.Context()).Engines)
		return out.Print(f.Stdout, list, func() error { return table(f.Stdout, list) })
	}
	return cmd
}

// found says what is known of each engine.
func found(engines []lifecycle.ProbedEngine) []api.Engine {
	list := []api.Engine{}
	for _, e := range engines {
		out := api.Engine{Name: e.Name, Version: e.Caps.Version, Path: e.Caps.Path, Tested: e.Caps.Tested}
		if e.Err != nil {
			out.Error, out.Remedy = e.Err.Error(), errdefs.RemedyOf(e.Err)
		}
		for _, a := range e.Accels {
			acc := api.EngineAccelerator{Name: a.Name, Emulated: a.Emulated, State: "usable"}
			switch {
			case a.Missing != "":
				acc.State, acc.Detail, acc.Remedy = "missing", a.Missing, a.Remedy
			case a.Emulated:
			case !a.Tried:
				acc.State = "untried"
			case !a.Usable:
				acc.State, acc.Detail = "useless", a.Evidence
			default:
				acc.Detail = a.Evidence
			}
			out.Accelerators = append(out.Accelerators, acc)
		}
		list = append(list, out)
	}
	return list
}

func table(w io.Writer, list []api.Engine) error {
	t := show.Table(w, "ENGINE", "VERSION", "TESTED", "ACCELERATORS", "PROGRAM")
	for _, e := range list {
		if e.Error != "" {
			show.Row(t, e.Name, "-", "-", "-", e.Error)
			continue
		}
		tested := "no"
		if e.Tested {
			tested = "yes"
		}
		var accels []string
		for _, a := range e.Accelerators {
			accels = append(accels, a.Name+" ("+a.State+")")
		}
		show.Row(t, e.Name, e.Version, tested, strings.Join(accels, ", "), e.Path)
	}
	return t.Flush()
}

func (f Front) install() *cobra.Command {
	var i api.EngineInstall
	cmd := &cobra.Command{
		Use: "install [flags] firecracker", Short: "Install a release of an engine", Args: f.Args(1, 1),
		Long: `Install fetches an official release of Firecracker, checks it against the digest that is published beside it, and puts it
below $SMOLVM_HOME/engines, one directory per version. With --from it takes an archive that is here already. VMs that
run go on with the release that they were started with.`,
		Example: `  smolvm engine install firecracker
  smolvm engine install firecracker --version 1.12.1
  smolvm engine install firecracker --from firecracker-v1.12.1-x86_64.tgz --sha256 DIGEST`,
		ValidArgs: []string{"firecracker"},
	}
	out := format.Add(cmd, "print what was installed as JSON", api.InstalledEngine{})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		i.Name = args[0]
		if i.From != "" {
			var err error
			if i.From, err = filepath.Abs(i.From); err != nil {
				return errdefs.Invalid.Errorf("from: %w", err)
			}
		}
		s, err := f.Open()
		if err != nil {
			return err
		}
		got, err := s.Install(cmd.Context(), i, nil)
		if err != nil {
			return err
		}
		return out.Print(f.Stdout, got, func() error {
			_, err := fmt.Fprintf(f.Stdout, "%s %s: %s\n", got.Name, got.Version, show.Escape(got.Path))
			return err
		})
	}
	fl := cmd.Flags()
	fl.StringVar(&i.Version, "version", "", "the `VERSION` to install (default: the newest one that was tested)")
	fl.StringVar(&i.From, "from", "", "take the archive `FILE` instead of fetching one")
	fl.StringVar(&i.SHA256, "sha256", "", "the `DIGEST` that the archive must have")
	return cmd
}
