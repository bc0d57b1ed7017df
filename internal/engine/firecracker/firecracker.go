// Package firecracker is the engine that runs Firecracker under KVM. The monitor is started confined, by
// internal/sys/launch, told what to run over its API, and reaches nothing of ours by path but the files that it is given
// and a directory of its own for its sockets.
//
// Layer: engine. It imports engine, engine/kvm, engine/monitor, errdefs, internal/guest/link and internal/sys.
package firecracker

import (
	"log/slog"

	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/firecracker/fcapi"
	"github.com/smolvm/smolvm/internal/engine/kvm"
	"github.com/smolvm/smolvm/internal/engine/monitor"
)

const name = "firecracker"

// Options are what an Engine works with. The zero value finds everything by itself.
type Options struct {
	// Program of the monitor; "" = $SMOLVM_FIRECRACKER, else the newest one in Dir, else firecracker in PATH.
	Program string
	// Dir is where `smolvm engine install` puts the releases, one directory each; "" = nowhere.
	Dir string
	Log *slog.Logger
}

// Engine starts Firecracker.
type Engine struct {
	opts     Options
	kvm      func() engine.Accel
	programs *monitor.Programs[fcapi.Version]
	before   func(pid int, request string) // told of each call to a monitor; nil but in tests
}

// New returns the engine.
func New(o Options) *Engine {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{opts: o, kvm: accel, programs: programs()}
}

// accel is KVM, where a machine with a network card can be had at all.
func accel() engine.Accel {
	a := kvm.Accel()
	if a.Missing == "" {
		a.Missing, a.Remedy = kvm.TAPMissing()
	}
	return a
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return name }
