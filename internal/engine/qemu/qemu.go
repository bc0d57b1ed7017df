// Package qemu is the engine that runs QEMU's microvm machine, under KVM or emulated. The monitor is started confined, by
// internal/sys/launch, and opens nothing of ours by path.
//
// Layer: engine. It imports engine, errdefs, internal/guest/link and internal/sys.
package qemu

import (
	"log/slog"
	"sync"

	"github.com/smolvm/smolvm/internal/engine"
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
	opts Options

	mu     sync.Mutex
	probed map[string]probed // by the program's path
}

// New returns the engine.
func New(o Options) *Engine {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.CacheDir == "" {
		o.CacheDir = engine.CacheDir()
	}
	return &Engine{opts: o, probed: map[string]probed{}}
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return name }
