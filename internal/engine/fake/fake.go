// Package fake is an engine without a monitor: its guest is a function in this process. It passes the contract suite, so
// that what sits above the contract can be tested without a VM. It is for tests only and is in no list of engines.
//
// Layer: engine.
package fake

import (
	"context"
	"net"
	"sync"

	"github.com/smolvm/smolvm/internal/engine"
)

// Options script an engine. The zero value is one that works and whose guest reads and never answers.
type Options struct {
	Name string      // default "fake"
	Caps engine.Caps // default: one emulating accelerator, "tcg"
	// Guest serves the guest's end of each stream, in a goroutine of its own. conn is a *Conn, whose Machine a guest may
	// end or pause.
	Guest func(conn net.Conn)
	// ProbeErr is what Probe returns.
	ProbeErr error
	// StartErr, when set, decides whether Start fails.
	StartErr func(engine.Spec) error
	// Boot, when set, is called by every DialGuest and blocks until the guest has booted; a guest that never does waits
	// for ctx. Its error is DialGuest's.
	Boot func(context.Context, *Machine) error
}

// Engine is a scripted engine.
type Engine struct {
	opts     Options
	mu       sync.Mutex
	machines []*Machine
}

// New returns an engine that does as o says.
func New(o Options) *Engine {
	if o.Name == "" {
		o.Name = "fake"
	}
	if o.Caps.Version == "" {
		o.Caps.Version, o.Caps.Path, o.Caps.Build, o.Caps.Tested = "1.0", "/nonexistent/fake", "fake-1.0", true
	}
	if len(o.Caps.Accels) == 0 {
		o.Caps.Accels = []engine.Accel{{Name: "tcg", Emulated: true}}
	}
	return &Engine{opts: o}
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return e.opts.Name }

// Probe implements engine.Engine.
func (e *Engine) Probe(ctx context.Context) (engine.Caps, error) {
	if e.opts.ProbeErr != nil {
		return engine.Caps{}, e.opts.ProbeErr
	}
	return e.opts.Caps, ctx.Err()
}

// Start implements engine.Engine.
func (e *Engine) Start(ctx context.Context, spec engine.Spec) (engine.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if e.opts.StartErr != nil {
		if err := e.opts.StartErr(spec); err != nil {
			return nil, err
		}
	}
	m, err := newMachine(e, spec)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.machines = append(e.machines, m)
	e.mu.Unlock()
	return m, nil
}

// Machines are all that were started, oldest first.
func (e *Engine) Machines() []*Machine {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]*Machine(nil), e.machines...)
}
