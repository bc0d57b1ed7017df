// Package change holds the commands that change what a VM is: rename, update.
//
// Layer: part of the front cli. It may import api, errdefs, and the parts of cli below it.
package change

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/value"
)

// VMs changes VMs.
type VMs interface {
	Rename(ctx context.Context, id, to string) error
	Update(ctx context.Context, id string, limits api.Limits) (api.Sandbox, error)
	SetTTL(ctx context.Context, id string, ttl time.Duration) error
	Inspect(ctx context.Context, id string, showEnv bool) (api.Sandbox, error)
}

// Env is what the commands need of the program.
type Env struct {
	VMs func() (VMs, error)
	// IDs completes ids of VMs, all or those that run, for up to limit arguments.
	IDs func(all bool, limit int) cobra.CompletionFunc
	// Args wants between low and high arguments.
	Args func(low, high int) cobra.PositionalArgs
}

// Commands returns the commands.
func (e Env) Commands() []*cobra.Command { return []*cobra.Command{e.rename(), e.update()} }

func (e Env) rename() *cobra.Command {
	return &cobra.Command{
		Use:               "rename ID NEW-ID",
		Short:             "Give a VM that does not run another name",
		Long:              "Rename gives a VM another id, and from its next start on the host name that goes with it. One that runs is refused.",
		Example:           "  smolvm rename web web-old",
		GroupID:           "vm",
		Args:              e.Args(2, 2),
		ValidArgsFunction: e.IDs(true, 1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			for _, id := range ids {
				if err := api.ValidateID(id); err != nil {
					return err
				}
			}
			vms, err := e.VMs()
			if err != nil {
				return err
			}
			if err := vms.Rename(cmd.Context(), ids[0], ids[1]); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), ids[1])
			return err
		},
	}
}

// sizes are the flags of update that are sizes.
type sizes struct{ memory, disk, console, log, output value.Size }

func (s *sizes) add(f *pflag.FlagSet, limits *api.Limits) {
	f.IntVar(&limits.CPUs, "cpus", 0, "`N` processors")
	f.Var(&s.memory, "memory", "memory")
	f.Var(&s.disk, "disk", "size of the writable disk")
	f.IntVar(&limits.MaxProcesses, "max-processes", 0, "`N` processes of all commands together")
	f.Var(&s.console, "console-size", "how much of the kernel's console is kept")
	f.Var(&s.log, "log-size", "how much is kept of what the command of run -d prints")
	f.Var(&s.output, "output-size", "how much of each command's output is kept for attach")
}

// ttlFlag is a duration, or none.
type ttlFlag struct {
	value.Duration
	none bool
}

// Set implements pflag.Value.
func (t *ttlFlag) Set(s string) error {
	if t.none = s == "none" || s == "0"; t.none {
		t.Duration = 0
		return nil
	}
	return t.Duration.Set(s)
}

func (e Env) update() *cobra.Command {
	var limits api.Limits
	var size sizes
	var ttl ttlFlag
	cmd := &cobra.Command{
		Use:   "update [flags] ID...",
		Short: "Change VMs' limits, from their next start on, and how long they may run",
		Long: `Update changes what VMs get when they start next. What is not given stays. A disk only grows; the guest then grows the
file system on it. The time to live counts at once: of a VM that runs, from now on, and of each later start.`,
		Example:           "  smolvm update --memory 4g --cpus 2 web\n  smolvm update --disk 20g web\n  smolvm update --ttl 1h web",
		GroupID:           "vm",
		Args:              e.Args(1, -1),
		ValidArgsFunction: e.IDs(true, -1),
	}
	size.add(cmd.Flags(), &limits)
	cmd.Flags().Var(&ttl, "ttl", "stop the VM when it has run for so long from now on; none: it may go on")
	out := format.Add(cmd, "print the VMs as JSON, one object after the other, instead of their ids", api.Sandbox{})
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		limits.MemoryMiB, limits.DiskMiB = int(size.memory), int(size.disk)
		limits.ConsoleMiB, limits.LogMiB, limits.OutputMiB = int(size.console), int(size.log), int(size.output)
		if limits == (api.Limits{}) && !cmd.Flags().Changed("ttl") {
			return errdefs.Invalid.Errorf("update: there is nothing to change").WithRemedy("smolvm update --help")
		}
		for _, id := range ids {
			if err := api.ValidateID(id); err != nil {
				return err
			}
		}
		vms, err := e.VMs()
		if err != nil {
			return err
		}
		for _, id := range ids {
			vm, err := e.updateOne(cmd, vms, id, limits, ttl)
			if err != nil {
				return err
			}
			err = out.Print(cmd.OutOrStdout(), vm, func() error {
				if vm.State.Live() && limits != (api.Limits{}) {
					_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "smolvm: %s is %s; this is for its next start\n", id, vm.State)
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), id)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// updateOne changes one VM, and returns what it is then.
func (e Env) updateOne(cmd *cobra.Command, vms VMs, id string, limits api.Limits, ttl ttlFlag) (vm api.Sandbox, err error) {
	if limits != (api.Limits{}) {
		if vm, err = vms.Update(cmd.Context(), id, limits); err != nil {
			return vm, err
		}
	}
	if !cmd.Flags().Changed("ttl") {
		return vm, nil
	}
	if err := vms.SetTTL(cmd.Context(), id, time.Duration(ttl.Milliseconds())*time.Millisecond); err != nil {
		return vm, err
	}
	return vms.Inspect(cmd.Context(), id, false)
}
