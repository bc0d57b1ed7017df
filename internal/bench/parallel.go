package bench

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/bench/figure"
	"github.com/smolvm/smolvm/internal/bench/house"
)

// How many VMs, by how many workers at once.
const (
	parallelVMs     = 10
	parallelWorkers = 5
)

// runParallel makes, uses and removes VMs at the same time.
func runParallel(ctx context.Context, o *Options) ([]api.Figure, error) {
	if err := o.ensure(ctx); err != nil {
		return nil, err
	}
	home, err := house.New(ctx, o.TempDir, o.Home, o.Elsewhere)
	if err != nil {
		return nil, err
	}
	defer home.Close()
	alone, err := o.cycle(ctx, home.Manager)
	if err != nil {
		return nil, err
	}
	before, err := home.Use()
	if err != nil {
		return nil, err
	}
	var failed, took []float64
	for i := range o.runs(1) {
		o.tell("parallel", "%d VMs by %d workers, round %d", parallelVMs, parallelWorkers, i+1)
		t0 := time.Now()
		n, err := o.atOnce(ctx, home)
		if err != nil {
			return nil, err
		}
		failed, took = append(failed, float64(n)), append(took, time.Since(t0).Seconds())
	}
	after, err := home.Use()
	if err != nil {
		return nil, err
	}
	figures := []api.Figure{
		figure.New("VMs that failed", "VMs", figure.AtMost(0), []float64{slices.Max(failed)}),
		figure.New("ten VMs by five workers", "s", figure.Goal{}, took),
		figure.New("one VM alone", "s", figure.Goal{}, []float64{alone}),
	}
	return append(figures, grown(before, after)...), nil
}

// atOnce returns how many of the VMs failed.
func (o *Options) atOnce(ctx context.Context, home *house.House) (int, error) {
	var failed atomic.Int32
	var g errgroup.Group
	g.SetLimit(parallelWorkers)
	for range parallelVMs {
		g.Go(func() error {
			if _, err := o.cycle(ctx, home.Manager); err != nil && ctx.Err() == nil {
				o.Log.Error("a VM failed", "error", err)
				failed.Add(1)
			}
			return nil
		})
	}
	_ = g.Wait()
	return int(failed.Load()), context.Cause(ctx)
}
