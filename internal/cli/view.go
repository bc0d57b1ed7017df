package cli

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/value"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

func (a *app) lsCommand() *cobra.Command {
	var all, quiet bool
	cmd := &cobra.Command{
		Use:               "ls [flags]",
		Aliases:           []string{"list"},
		Short:             "List VMs",
		Example:           "  smolvm ls\n  smolvm ls -a --json\n  smolvm ls --format '{{.ID}} {{.State}}'",
		GroupID:           "vm",
		Args:              value.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "also those that do not run")
	f.BoolVarP(&quiet, "quiet", "q", false, "ids only")
	out := format.Add(cmd, "print everything as JSON", api.Sandbox{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.list(cmd.Context(), all, quiet, out) }
	return cmd
}

func (a *app) list(ctx context.Context, all, quiet bool, out *format.Flags) error {
	s, err := a.open(false)
	if err != nil {
		return err
	}
	vms, err := s.VMs.List(ctx, all)
	if err != nil {
		return err
	}
	return out.Print(a.Stdout, vms, func() error {
		if !quiet {
			return show.VMs(a.Stdout, vms, time.Now())
		}
		for _, vm := range vms {
			if err := a.println("%s", show.Cell(vm.ID)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *app) inspectCommand() *cobra.Command {
	var showEnv bool
	cmd := &cobra.Command{
		Use:   "inspect [flags] ID",
		Short: "Show everything about a VM, as JSON",
		Example: `  smolvm inspect web
  smolvm inspect web | jq -r .state
  smolvm inspect --format '{{.State}} {{.Config.CPUs}}' web`,
		GroupID:           "vm",
		Args:              value.Args(1, 1),
		ValidArgsFunction: a.completeIDs(true, 1),
	}
	cmd.Flags().BoolVar(&showEnv, "show-env", false, "also the values of its variables, which may be secret")
	out := format.Add(cmd, "for symmetry: it always is", api.Sandbox{})
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		if err := api.ValidateID(ids[0]); err != nil {
			return err
		}
		s, err := a.open(false)
		if err != nil {
			return err
		}
		vm, err := s.VMs.Inspect(cmd.Context(), ids[0], showEnv)
		if err != nil {
			return err
		}
		return out.Print(a.Stdout, vm, nil)
	}
	return cmd
}

func (a *app) printVM(ctx context.Context, vms VMs, id string) error {
	vm, err := vms.Inspect(ctx, id, false)
	if err != nil {
		return err
	}
	return show.JSON(a.Stdout, vm)
}

func (a *app) logsCommand() *cobra.Command {
	var follow, console, raw bool
	cmd := &cobra.Command{
		Use:   "logs [flags] ID",
		Short: "Show what a VM printed",
		Long: `Logs shows what the command of "smolvm run -d" printed, or with --console what the guest's kernel did. Both are kept
up to a limit. On a terminal, control characters are shown by their numbers unless --raw.`,
		Example:           "  smolvm logs -f web\n  smolvm logs --console web",
		GroupID:           "run",
		Args:              value.Args(1, 1),
		ValidArgsFunction: a.completeIDs(true, 1),
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on until the VM ends")
	f.BoolVar(&console, "console", false, "the kernel's console")
	f.BoolVar(&raw, "raw", false, "print control characters as they are")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		if err := api.ValidateID(ids[0]); err != nil {
			return err
		}
		s, err := a.open(false)
		if err != nil {
			return err
		}
		kind := lifecycle.LogOutput
		if console {
			kind = lifecycle.LogConsole
		}
		var w io.Writer = a.Stdout
		if !raw && show.IsTerminal(a.Stdout) {
			w = &show.Escaper{W: a.Stdout}
		}
		return s.VMs.Logs(cmd.Context(), ids[0], kind, follow, w)
	}
	return cmd
}
