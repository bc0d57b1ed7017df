// Package bench measures SmolVM: each suite prints figures, most of them ratios of two things measured in turn, since
// machines are shared and noisy. What a figure means stands in docs/bench.md.
//
// Layer: front, beside cli. It may import lifecycle, engine, image, guest/client, api, errdefs, sys.
package bench

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/bench/looked"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// Options are what the suites work with.
type Options struct {
	Manager *lifecycle.Manager
	Images  *image.Store
	Engine  engine.Engine
	// Direct is the engine that only runs on KVM, nil where it does not; DirectMissing says why.
	Direct        engine.Engine
	DirectMissing string
	Agent         []byte
	Runs          int    // pairs per figure; 0 = the suite's own default
	TempDir       string // for what is measured outside $SMOLVM_HOME
	Home          string // where Manager and Images are
	Progress      api.ProgressFunc
	Log           *slog.Logger
	// Elsewhere opens another home.
	Elsewhere func(home string) (*lifecycle.Manager, error)
}

// suite measures one thing.
type suite struct {
	name string
	what string
	run  func(context.Context, *Options) ([]api.Figure, error)
}

func suites() []suite {
	return []suite{
		{"boot", "create to the first command's answer, against a bare engine start", runBoot},
		{"exec", "latency of commands, against the bare channel", runExec},
		{"sdk", "a command by the Go SDK, against a call of the supervisor's in this process", runSDK},
		{"copy", "throughput of files, against the bare channel", runCopy},
		{"attach", "replay of a command's output, against a copy of the same", runReplay},
		{"image", "tar to a published ext4, against mke2fs -d", runImage},
		{"idle", "memory of an idle supervisor", runIdle},
		{"net", "throughput and latency of the network, against the agent's copies", runNet},
		{"proxy", "requests that the gateway looks into, against connections that it passes on", func(ctx context.Context, o *Options) ([]api.Figure, error) {
			return looked.Run(ctx, o.TempDir, o.runs(5), o.tell, o.Log)
		}},
		{"ls", "listing of 1,000 VMs, against reading their records", runList},
		{"engine", "the card with segments left to it, against without; Firecracker by our engine, against itself without us", runEngine},
		{"parallel", "ten VMs by five workers: how many fail, and what is left", runParallel},
		{"cycles", "a home after many VMs, against a fresh one, and what is left", runCycles},
	}
}

// Suites returns the names of the suites, each with what it measures.
func Suites() [][2]string {
	var out [][2]string
	for _, s := range suites() {
		out = append(out, [2]string{s.name, s.what})
	}
	return out
}

// Run runs those of the suites that are named, all of them where none is.
func Run(ctx context.Context, o Options, names []string) ([]api.Suite, error) {
	known := suites()
	var out []api.Suite
	for _, s := range known {
		if len(names) > 0 && !slices.Contains(names, s.name) {
			continue
		}
		figures, err := s.run(ctx, &o)
		if err != nil {
			return out, fmt.Errorf("bench %s: %w", s.name, err)
		}
		out = append(out, api.Suite{Suite: s.name, Figures: figures})
	}
	return out, nil
}

// runs returns how many pairs to measure.
func (o *Options) runs(def int) int {
	if o.Runs > 0 {
		return o.Runs
	}
	return def
}

func (o *Options) tell(stage, format string, args ...any) {
	if o.Progress != nil {
		o.Progress(api.Progress{Stage: stage, Detail: fmt.Sprintf(format, args...)})
	}
}
