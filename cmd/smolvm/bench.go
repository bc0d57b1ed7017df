package main

import (
	"context"
	"os"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/bench"
	"github.com/smolvm/smolvm/internal/cli"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/wire"
)

// measure is `smolvm bench`.
func measure(ctx context.Context, o cli.OpenOptions, b cli.BenchOptions) ([]api.Suite, error) {
	o.Boots = true
	images, err := wire.Images(o.Home, version, o.Log)
	if err != nil {
		return nil, err
	}
	m, err := manager(o, images)
	if err != nil {
		return nil, err
	}
	// The last one works everywhere, and its bare machine needs no help of a supervisor's.
	engines := wire.Engines(o.Home, o.Log)
	ways, err := engines.Choose(ctx, "")
	if err != nil {
		return nil, err
	}
	agent, err := guestAgent(agentFiles, agentDigest)
	if err != nil {
		return nil, err
	}
	opts := bench.Options{
		Manager: m, Images: images, Engine: ways[len(ways)-1].Engine, Agent: agent, Runs: b.Runs, TempDir: os.TempDir(), Home: o.Home, Progress: b.Progress, Log: o.Log,
		Elsewhere: func(home string) (*lifecycle.Manager, error) { return elsewhere(o, home) },
	}
	if kvm, err := engines.Choose(ctx, "firecracker"); err != nil {
		opts.DirectMissing = err.Error()
	} else {
		opts.Direct = kvm[0].Engine
	}
	return bench.Run(ctx, opts, b.Suites)
}

// elsewhere opens another home.
func elsewhere(o cli.OpenOptions, home string) (*lifecycle.Manager, error) {
	o.Home = home
	images, err := wire.Images(home, version, o.Log)
	if err != nil {
		return nil, err
	}
	return manager(o, images)
}
