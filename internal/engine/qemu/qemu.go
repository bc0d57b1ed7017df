// Package qemu is the engine that runs QEMU's microvm machine, under KVM or emulated. The monitor is started confined, by
// internal/sys/launch, and opens nothing of ours by path.
//
// Layer: engine. It imports engine, errdefs, internal/guest/link and internal/sys.
package qemu

import (
	"log/slog"

	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/monitor"
)

const (
	name     = "qemu"
	accelTCG = "tcg"
)

// Options are what an Engine works with. The zero value finds everything by itself.
type Options struct {
	Program  string // of the monitor; "" = $SMOLVM_QEMU, else qemu-system-x86_64 in PATH
	CacheDir string // where what was measured is kept; "" = engine.CacheDir()
	Log      *slog.Logger
}

// Engine starts QEMU.
type Engine struct {
	opts     Options
	programs *monitor.Programs[version]
}

// New returns the engine.
func New(o Options) *Engine {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.CacheDir == "" {
		o.CacheDir = engine.CacheDir()
	}
	return &Engine{opts: o, programs: programs()}
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return name }
