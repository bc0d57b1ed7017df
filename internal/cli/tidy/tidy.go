// Package tidy holds the command that makes room: prune.
//
// Layer: part of the front cli. It may import api, errdefs, and the parts of cli below it.
package tidy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/terminal"
)

// Pruner finds what nobody needs any more, and removes it.
type Pruner interface {
	Find(ctx context.Context, o api.PruneOptions) ([]api.Leftover, error)
	Remove(ctx context.Context, l api.Leftover) error
}

// Env is what the command needs of the program.
type Env struct {
	Pruner func() (Pruner, error)
	Stdin  *os.File
	// Args wants between low and high arguments.
	Args func(low, high int) cobra.PositionalArgs
}

// Prune returns the command.
func (e Env) Prune() *cobra.Command {
	var o api.PruneOptions
	var force, dry bool
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove what nothing needs any more",
		Long: `Prune shows what nothing needs any more, with its size, asks, and removes it: images that a newer build replaced, what
image ssh-key made of them, and kernels, from which no VM was made. With -a also images with a name from which none was made, with --vms also VMs that do
not run, and everything in them.`,
		Example:           "  smolvm prune\n  smolvm prune -a --dry-run\n  smolvm prune --vms -f",
		GroupID:           "more",
		Args:              e.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.BoolVarP(&o.All, "all", "a", false, "images with a name too")
	f.BoolVar(&o.VMs, "vms", false, "VMs that do not run too, with their disks")
	f.BoolVarP(&force, "force", "f", false, "do not ask")
	f.BoolVar(&dry, "dry-run", false, "only show what would be removed")
	out := format.Add(cmd, "print what was found as JSON; removes it only with -f", api.Leftover{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p, err := e.Pruner()
		if err != nil {
			return err
		}
		found, err := p.Find(cmd.Context(), o)
		if err != nil {
			return err
		}
		err = out.Print(cmd.OutOrStdout(), found, func() error { return print(cmd.OutOrStdout(), found) })
		if err != nil || dry || len(found) == 0 || !out.People() && !force {
			return err
		}
		if !force {
			if yes, err := e.ask(cmd.Context(), cmd.ErrOrStderr()); err != nil || !yes {
				return err
			}
		}
		return e.remove(cmd, p, found, !out.People())
	}
	return cmd
}

func (e Env) remove(cmd *cobra.Command, p Pruner, found []api.Leftover, quiet bool) error {
	var freed int64
	var failed []error
	for _, l := range found {
		if err := p.Remove(cmd.Context(), l); err != nil {
			failed = append(failed, err)
			continue
		}
		freed += l.Bytes
	}
	if !quiet {
		_, _ = fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", units.BytesSize(float64(freed)))
	}
	return errors.Join(failed...)
}

func print(w io.Writer, found []api.Leftover) error {
	if len(found) == 0 {
		_, err := io.WriteString(w, "nothing to remove\n")
		return err
	}
	t := show.Table(w, "KIND", "NAME", "SIZE", "WHY")
	var total int64
	for _, l := range found {
		total += l.Bytes
		show.Row(t, l.Kind, l.Name, units.BytesSize(float64(l.Bytes)), l.Why)
	}
	show.Row(t, "total", "", units.BytesSize(float64(total)), "")
	return t.Flush()
}

// ask waits for a yes on our terminal.
func (e Env) ask(ctx context.Context, w io.Writer) (bool, error) {
	if !terminal.Is(e.Stdin) {
		return false, errdefs.Invalid.Errorf("prune: nobody can be asked: the input is no terminal").WithRemedy("smolvm prune -f")
	}
	if _, err := io.WriteString(w, "Remove all of these? [y/N] "); err != nil {
		return false, err
	}
	said := make(chan string, 1)
	failed := make(chan error, 1)
	go func() { // it cannot be interrupted: Ctrl-C leaves it behind
		line, err := bufio.NewReader(e.Stdin).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			failed <- errdefs.Host.Errorf("read the answer: %w", err)
			return
		}
		said <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case err := <-failed:
		return false, err
	case answer := <-said:
		return answer == "y" || answer == "yes", nil
	}
}
