package bench

import (
	"context"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/bench/bare"
	"github.com/smolvm/smolvm/internal/bench/contest"
	"github.com/smolvm/smolvm/internal/bench/raw"
)

// engineMemoryMiB is a machine's, on both sides: what the figures are of does not depend on it, and a lab has little.
const engineMemoryMiB = 256

// runEngine measures what an engine's card is good for, and compares the engine that needs KVM with its bare monitor.
func runEngine(ctx context.Context, o *Options) ([]api.Figure, error) {
	figures, err := contest.Segments(ctx, o.contest("engine", 9))
	if err != nil {
		return figures, err
	}
	more, err := runDirect(ctx, o)
	return append(figures, more...), err
}

// runDirect compares the engine that needs KVM with its bare monitor.
func runDirect(ctx context.Context, o *Options) ([]api.Figure, error) {
	if o.Direct == nil {
		return raw.Skipped(o.DirectMissing), nil
	}
	caps, err := o.Direct.Probe(ctx)
	if err != nil {
		return nil, err
	}
	kit, err := bare.NewKit(ctx, o.Images, o.Agent, caps.Accels[0].Name, o.Progress)
	if err != nil {
		return nil, err
	}
	kit.MemoryMiB = engineMemoryMiB
	return raw.Compare(ctx, raw.Options{
		Engine: o.Direct, Kit: kit, Temp: o.TempDir, Runs: o.runs(9), Whole: o.whole,
		Tell: func(what string, pair int) { o.tell("engine", "%s, pair %d", what, pair) },
	})
}

// whole is create to first answer, in seconds, of a VM that the engine with KVM runs.
func (o *Options) whole(ctx context.Context) (float64, error) {
	begun := time.Now()
	v, err := o.startVMWith(ctx, api.Config{Engine: o.Direct.Name(), MemoryMiB: engineMemoryMiB, BootTimeoutMs: 180_000})
	if err != nil {
		return 0, err
	}
	defer o.removeVM(ctx, v)
	_, err = v.succeed(ctx, "true")
	return time.Since(begun).Seconds(), err
}
