package lifecycle

import (
	"context"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/engine"
)

// Probed is what can be told of this host without starting a VM.
type Probed struct {
	Engines []ProbedEngine
	// Image and Kernel are the default ones; without them their errors tell why.
	Image     api.Image
	ImageErr  error
	Kernel    api.Kernel
	KernelErr error
}

// ProbedEngine is an engine in this program.
type ProbedEngine = engine.Probed

// ProbedAccel is a way to run guest code.
type ProbedAccel = engine.ProbedAccel

// Probe looks at the engines, the image and the kernel.
func (m *Manager) Probe(ctx context.Context) Probed {
	var p Probed
	p.Image, p.ImageErr = m.opts.Images.Lookup(api.DefaultImage)
	p.Kernel, p.KernelErr = m.opts.Images.LookupKernel(ctx, "")
	p.Engines = m.opts.Engines.Probe(ctx, p.Kernel.ID)
	return p
}
