package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/show"
)

// between is the time between two looks at what a processor did, where only one figure is wanted.
const between = 500 * time.Millisecond

// sampler remembers the figures before.
type sampler struct {
	vms    VMs
	ids    []string // none: all that run
	before map[string]api.Metrics
}

// sample returns the present figures. A VM that has gone meanwhile is left out, unless it was named.
func (s *sampler) sample(ctx context.Context) ([]api.Stats, error) {
	ids := s.ids
	if len(ids) == 0 {
		boxes, err := s.vms.List(ctx, false)
		if err != nil {
			return nil, err
		}
		for _, b := range boxes {
			ids = append(ids, b.ID)
		}
	}
	var all []api.Stats
	for _, id := range ids {
		st, err := s.vms.Stats(ctx, id)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil && (len(s.ids) > 0 || !errdefs.Is(err, errdefs.NotFound) && !errdefs.Is(err, errdefs.Unavailable)):
			return nil, err
		case err != nil:
			continue
		}
		if st.Guest != nil {
			if last, known := s.before[id]; known && st.Guest.UptimeMs > last.UptimeMs {
				p := 100 * float64(max(0, st.Guest.CPUMs-last.CPUMs)) / float64(st.Guest.UptimeMs-last.UptimeMs)
				st.CPUPercent = &p
			}
			s.before[id] = *st.Guest
		}
		all = append(all, st)
	}
	return all, nil
}

func (e Env) stats() *cobra.Command {
	var follow bool
	interval := 2 * time.Second
	cmd := &cobra.Command{
		Use:   "stats [flags] [ID...]",
		Short: "Show what VMs use",
		Long: `Stats shows what the VMs named, or all that run, use: processor time, memory, disk and network as their guests say,
which are not trusted, and what they cost this host: the memory of monitor and supervisor, and the space that the disk takes.`,
		Example:           "  smolvm stats\n  smolvm stats -f web\n  smolvm stats --json web | jq .guest",
		GroupID:           "vm",
		Args:              e.Args(0, -1),
		ValidArgsFunction: e.IDs(false, -1),
	}
	f := cmd.Flags()
	f.BoolVarP(&follow, "follow", "f", false, "go on, every --interval")
	f.DurationVar(&interval, "interval", interval, "the time between two looks")
	out := format.Add(cmd, "print one JSON object per VM and line", api.Stats{})
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		if err := validate(ids); err != nil {
			return err
		}
		if interval < 100*time.Millisecond {
			return errdefs.Invalid.Errorf("interval: %s is less than 100ms", interval)
		}
		vms, err := e.VMs()
		if err != nil {
			return err
		}
		s := &sampler{vms: vms, ids: ids, before: map[string]api.Metrics{}}
		if _, err := s.sample(cmd.Context()); err != nil {
			return err
		}
		for wait := between; ; wait = interval {
			select {
			case <-cmd.Context().Done():
				return context.Cause(cmd.Context())
			case <-time.After(wait):
			}
			all, err := s.sample(cmd.Context())
			if err == nil {
				err = printStats(cmd.OutOrStdout(), all, out, follow)
			}
			if err != nil || !follow {
				return err
			}
		}
	}
	return cmd
}

func printStats(w io.Writer, all []api.Stats, out *format.Flags, follow bool) error {
	if !out.People() {
		var failed []error
		for _, s := range all {
			failed = append(failed, out.Line(w, s, nil))
		}
		return errors.Join(failed...)
	}
	f, ok := w.(*os.File)
	if !ok || !follow || !show.Drawable(f) {
		return statsTable(w, all)
	}
	var b strings.Builder
	if err := statsTable(&b, all); err != nil {
		return err
	}
	_, err := io.WriteString(w, show.Screen(b.String()))
	return err
}

func statsTable(w io.Writer, all []api.Stats) error {
	t := show.Table(w, "ID", "STATE", "CPU", "MEMORY", "DISK", "NET IN / OUT", "PROCS", "HOST MEMORY", "HOST DISK")
	for _, s := range all {
		cpu, memory, disk, net, procs := "", "", "", "", ""
		if g := s.Guest; g != nil {
			memory = size(g.MemoryTotal-min(g.MemoryAvailable, g.MemoryTotal)) + " / " + size(g.MemoryTotal)
			disk = size(g.DiskTotal-min(g.DiskFree, g.DiskTotal)) + " / " + size(g.DiskTotal)
			net = size(g.NetworkReceived) + " / " + size(g.NetworkSent)
			procs = strconv.Itoa(int(g.Processes))
		}
		if s.CPUPercent != nil {
			cpu = fmt.Sprintf("%.1f%%", *s.CPUPercent)
		}
		show.Row(t, s.VM, string(s.State), cpu, memory, disk, net, procs, size(s.HostMemory), size(s.HostDisk))
	}
	return t.Flush()
}

func size(n uint64) string { return units.BytesSize(float64(n)) }
