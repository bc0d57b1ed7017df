package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/transfer"
	"github.com/smolvm/smolvm/internal/cli/value"
)

func (a *app) cpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cp SRC ID:DST | cp ID:SRC DST",
		Short: "Copy files and directories into a VM or out of it",
		Long: `Cp copies a file, or a directory with all in it, as "cp -r" does: into DST where that is a directory, else to that
name; of "SRC/." only what is in the directory. With - it reads a tar from standard input and unpacks it in the directory
DST, or writes one to standard output. A path in the VM that is not absolute begins at ` + transfer.Home + `.

What comes out of a VM is not trusted: it belongs to us, has no set-uid bits, and names and links that lead out of DST,
devices and pipes are left out, which is an error in the end.`,
		Example: `  smolvm cp ./site web:/srv/
  smolvm cp web:/var/log/dpkg.log .
  tar -c src | smolvm cp - web:/root
  smolvm cp web:/root/out - | tar -t`,
		GroupID: "run",
		Args:    value.Args(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.cp(cmd.Context(), args[0], args[1])
		},
	}
}

func (a *app) cp(ctx context.Context, src, dst string) error {
	from, fromPath, out := transfer.Split(src)
	to, toPath, in := transfer.Split(dst)
	if in == out {
		return errdefs.Invalid.Errorf("cp: one of %q and %q must be in a VM, as ID:PATH, and the other one here", src, dst).
			WithRemedy("smolvm cp --help")
	}
	p := show.NewProgress(a.Stderr, a.verbose, true)
	defer p.Stop()
	c := &transfer.Copy{
		ID: to, Guest: transfer.Path(toPath), Host: src,
		Stdin: a.Stdin, Stdout: a.Stdout, Progress: p.Report,
		Warn: func(format string, args ...any) { p.Stop(); a.say("warning: "+format, args...) },
	}
	if out {
		c.ID, c.Guest, c.Host = from, transfer.Path(fromPath), dst
	}
	s, err := a.open(false)
	if err != nil {
		return err
	}
	vm, err := s.VMs.Inspect(ctx, c.ID, false)
	if err != nil {
		return err
	}
	// More than its disk, memory and image can hold does not come out of a VM honestly.
	c.Max = (int64(vm.Config.DiskMiB+vm.Config.MemoryMiB) << 20) + 64<<30
	g, err := s.VMs.Connect(ctx, c.ID)
	if err != nil {
		return err
	}
	defer func() { _ = g.Close() }()
	c.Files = g
	if out {
		return c.Out(ctx)
	}
	return c.In(ctx)
}
