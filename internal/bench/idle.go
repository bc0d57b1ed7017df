package bench

import (
	"context"
	"time"

	"github.com/smolvm/smolvm/api"
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
	if supervisor, err = figure.PrivateDirtyMiB(v.SupervisorPID); err != nil {
		return 0, 0, err
	}
	monitor, err = figure.PrivateDirtyMiB(v.VMMPID)
	return supervisor, monitor, err
}
