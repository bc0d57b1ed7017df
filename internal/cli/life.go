package cli

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/interrupt"
	"github.com/smolvm/smolvm/internal/cli/secret"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/value"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

func (a *app) createCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create [flags]",
		Short: "Make a VM that stays, without starting it",
		Example: `  smolvm create --name web --cpus 2 --memory 2g
  smolvm start web`,
		GroupID:           "vm",
		Args:              value.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	v := a.vmFlags(cmd)
	out := format.Add(cmd, "print the VM as JSON instead of its id", api.Sandbox{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := v.config(cmd)
		if err != nil {
			return err
		}
		s, err := a.open(true)
		if err != nil {
			return err
		}
		values, err := secret.Resolve(cmd.Context(), cmd, cfg.ID, cfg.Secrets) // so that what is missing is told now
		if err != nil {
			return err
		}
		p := a.progress()
		defer p.Stop()
		vm, err := s.VMs.Create(cmd.Context(), cfg, lifecycle.CreateOptions{Owner: api.OwnerKeep, Client: os.Getpid(), Progress: p.Report, Secrets: values})
		if err != nil {
			return err
		}
		p.Stop()
		return out.Print(a.Stdout, vm, func() error { return a.println("%s", vm.ID) })
	}
	return cmd
}

// errNothing says that there was nothing to do, which is no failure and no id to print.
var errNothing = errors.New("nothing to do")

// each makes a command that does one thing to every VM named, and prints the id of each that it was done to.
func (a *app) each(cmd *cobra.Command, live, boots bool, do func(ctx context.Context, vms VMs, id string) error) *cobra.Command {
	cmd.GroupID, cmd.Args = "vm", value.Args(1, -1)
	cmd.ValidArgsFunction = a.completeIDs(!live, -1)
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		for _, id := range ids {
			if err := api.ValidateID(id); err != nil {
				return err
			}
		}
		s, err := a.open(boots)
		if err != nil {
			return err
		}
		var failed []error
		for _, id := range ids {
			err := do(cmd.Context(), s.VMs, id)
			if err == nil {
				err = a.println("%s", id)
			}
			if err != nil && !errors.Is(err, errNothing) {
				failed = append(failed, err)
			}
			if cmd.Context().Err() != nil {
				break
			}
		}
		if len(failed) < 2 {
			return errors.Join(failed...)
		}
		if cmd.Context().Err() == nil {
			for _, err := range failed {
				show.Report(a.Stderr, err)
			}
		}
		return interrupt.ExitError{Code: 1}
	}
	return cmd
}

func (a *app) startCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "start ID...", Short: "Start VMs",
		Long: `Start boots VMs and returns when commands can run in them. Their disks are as they were left. The values of their secrets are
found anew, here.`,
		Example: "  smolvm start web",
	}
	return a.each(cmd, false, true, func(ctx context.Context, vms VMs, id string) error {
		was, err := vms.Inspect(ctx, id, false) // what is wrong with it the start tells best
		var values api.SecretValues
		if err == nil && !was.State.Live() {
			if values, err = secret.Resolve(ctx, cmd, id, was.Config.Secrets); err != nil {
				return err
			}
		}
		p := a.progress()
		defer p.Stop()
		vm, err := vms.StartWith(ctx, id, values, p.Report)
		if err == nil {
			p.Stop()
			a.started(ctx, vm)
		}
		return err
	})
}

// started does what the ports of a VM want that has just started.
func (a *app) started(ctx context.Context, vm api.Sandbox) {
	f := a.portFront()
	f.Announce(vm.ID, vm.Ports)
	f.Login(ctx, vm.ID, vm.Ports)
}

func (a *app) stopCommand() *cobra.Command {
	var grace value.Duration
	var kill bool
	cmd := a.each(&cobra.Command{
		Use: "stop [flags] ID...", Short: "Stop VMs; their disks stay",
		Long: `Stop lets the guest write its data back and power off, and ends it when that takes longer than --grace. Stopping a VM
that does not run is no error.`,
		Example: "  smolvm stop web\n  smolvm stop --kill web",
	}, true, false, func(ctx context.Context, vms VMs, id string) error {
		return vms.Stop(ctx, id, lifecycle.StopOptions{Grace: time.Duration(grace), Kill: kill})
	})
	cmd.Flags().VarP(&grace, "grace", "t", "how long the guest may take (default 10s)")
	cmd.Flags().BoolVar(&kill, "kill", false, "end it at once; what was not written back is lost")
	return cmd
}

func (a *app) pauseCommand() *cobra.Command {
	return a.each(&cobra.Command{
		Use: "pause ID...", Short: "Stop VMs' processors; their memory stays",
		Example: "  smolvm pause web\n  smolvm unpause web",
	}, true, false, func(ctx context.Context, vms VMs, id string) error { return vms.Pause(ctx, id) })
}

func (a *app) unpauseCommand() *cobra.Command {
	return a.each(&cobra.Command{
		Use: "unpause ID...", Short: "Let paused VMs go on",
		Example: "  smolvm unpause web",
	}, true, false, func(ctx context.Context, vms VMs, id string) error { return vms.Unpause(ctx, id) })
}

func (a *app) rmCommand() *cobra.Command {
	var force bool
	cmd := a.each(&cobra.Command{
		Use: "rm [flags] ID...", Short: "Remove VMs with their disks",
		Long:    "Rm removes VMs with everything in them. One that runs is refused without -f, and with -f one that is not there is no error.",
		Example: "  smolvm rm web\n  smolvm rm -f $(smolvm ls -aq)",
	}, false, false, func(ctx context.Context, vms VMs, id string) error {
		err := vms.Remove(ctx, id, force)
		if force && errdefs.Is(err, errdefs.NotFound) {
			return errNothing
		}
		return err
	})
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also those that run")
	return cmd
}
