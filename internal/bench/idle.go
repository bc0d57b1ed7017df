package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/figure"
)

// idleSettle is how long a supervisor is left alone before its memory counts.
const idleSettle = 3 * time.Second

func runIdle(ctx context.Context, o *Options) ([]api.Figure, error) {
	var supervisor, monitor []float64
	for i := range o.runs(3) {
		o.tell("idle", "VM %d", i+1)
		v, err := o.startVM(ctx)
		if err != nil {
			return nil, err
		}
		s, m, err := o.idleMemory(ctx, v)
		o.removeVM(ctx, v)
		if err != nil {
			return nil, err
		}
		supervisor, monitor = append(supervisor, s), append(monitor, m)
	}
	return []api.Figure{
		figure.New("supervisor, Private_Dirty", "MiB", figure.AtMost(15), supervisor),
		figure.New("monitor, Private_Dirty", "MiB", figure.Goal{}, monitor),
	}, nil
}

func (o *Options) idleMemory(ctx context.Context, v *vm) (supervisor, monitor float64, err error) {
	if _, err = v.succeed(ctx, "true"); err != nil {
		return 0, 0, err
	}
	select {
	case <-time.After(idleSettle):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	if supervisor, err = privateDirtyMiB(v.SupervisorPID); err != nil {
		return 0, 0, err
	}
	monitor, err = privateDirtyMiB(v.VMMPID)
	return supervisor, monitor, err
}

// privateDirtyMiB reads the sum that the kernel keeps in smaps_rollup.
func privateDirtyMiB(pid int) (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, errdefs.Host.Errorf("memory of process %d: %w", pid, err)
	}
	defer func() { _ = f.Close() }()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if rest, ok := strings.CutPrefix(s.Text(), "Private_Dirty:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, errdefs.Host.Errorf("memory of process %d: smaps_rollup has no Private_Dirty", pid)
}
