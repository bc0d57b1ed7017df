package bench

import (
	"context"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/bench/figure"
	"github.com/smolvm/smolvm/internal/bench/house"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// cyclesPerPair is how many cycles a home has behind it, per pair that is measured then.
const cyclesPerPair = 10

// small is a VM of which several fit on a small host.
func small() api.Config { return api.Config{MemoryMiB: 256} }

// cycle makes a VM, runs a command in it and removes it, in seconds.
func (o *Options) cycle(ctx context.Context, m *lifecycle.Manager) (float64, error) {
	in := *o
	in.Manager = m
	t0 := time.Now()
	v, err := in.startVMWith(ctx, small())
	if err != nil {
		return 0, err
	}
	_, err = v.succeed(ctx, "true")
	_ = v.guest.Close()
	if rerr := m.Remove(context.WithoutCancel(ctx), v.ID, true); err == nil {
		err = rerr
	}
	return time.Since(t0).Seconds(), err
}

// ensure makes image and kernel in the user's home, so that no home of ours has to.
func (o *Options) ensure(ctx context.Context) error {
	if _, err := o.Images.Ensure(ctx, api.DefaultImage, image.EnsureOptions{Progress: o.Progress}); err != nil {
		return err
	}
	k, err := o.Images.EnsureKernel(ctx, false, o.Progress)
	if err != nil {
		return err
	}
	_, err = o.Images.BootFiles(ctx, k, o.Agent)
	return err
}

// runCycles wears a home out, and compares it with fresh ones.
func runCycles(ctx context.Context, o *Options) ([]api.Figure, error) {
	if err := o.ensure(ctx); err != nil {
		return nil, err
	}
	worn, err := house.New(ctx, o.TempDir, o.Home, o.Elsewhere)
	if err != nil {
		return nil, err
	}
	defer worn.Close()
	n := o.runs(20)
	if _, err := o.cycle(ctx, worn.Manager); err != nil { // it makes directories, and warms the caches
		return nil, err
	}
	before, err := worn.Use()
	if err != nil {
		return nil, err
	}
	for i := range n * cyclesPerPair {
		o.tell("cycles", "%d of %d", i+1, n*cyclesPerPair)
		if _, err := o.cycle(ctx, worn.Manager); err != nil {
			return nil, err
		}
	}
	after, err := worn.Use()
	if err != nil {
		return nil, err
	}
	var p figure.Pairs
	for i := range n {
		o.tell("cycles", "pair %d", i+1)
		a, b, err := o.wornAndFresh(ctx, worn, i%2 == 0)
		if err != nil {
			return nil, err
		}
		p.Add(a, b)
	}
	figures := p.Figures("cycle in a worn home / in a fresh one", figure.AtMost(1.15), "cycle in a worn home", "cycle in a fresh home", "s")
	return append(figures, grown(before, after)...), nil
}

// grown judges what is there after that was not there before. The locks of VMs stay, empty, and with them their directory
// grows: that is all the disk that a cycle may keep.
func grown(before, after house.Use) []api.Figure {
	one := func(name, unit string, bound, v float64) api.Figure {
		return figure.New(name, unit, figure.AtMost(bound), []float64{v})
	}
	return []api.Figure{
		one("growth of the disk", "KiB", 64, float64(after.Disk-before.Disk)/1024),
		one("VMs and trash left", "directories", 0, float64(after.VMs)),
		one("processes left", "processes", 0, float64(after.Procs)),
		one("growth of our descriptors", "descriptors", 0, float64(max(0, after.FDs-before.FDs))),
	}
}

// wornAndFresh measures a cycle in each home, in one order or the other: the second one finds the host's caches warmer.
func (o *Options) wornAndFresh(ctx context.Context, worn *house.House, wornFirst bool) (a, b float64, err error) {
	fresh, err := house.New(ctx, o.TempDir, worn.Dir, o.Elsewhere)
	if err != nil {
		return 0, 0, err
	}
	defer fresh.Close()
	if wornFirst {
		a, err = o.cycle(ctx, worn.Manager)
	}
	if err == nil {
		b, err = o.cycle(ctx, fresh.Manager)
	}
	if err == nil && !wornFirst {
		a, err = o.cycle(ctx, worn.Manager)
	}
	return a, b, err
}
