package lifecycle

import (
	"context"
	"os"

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
type ProbedEngine struct {
	Name   string
	Caps   engine.Caps
	Err    error // it cannot be used
	Accels []ProbedAccel
}

// ProbedAccel is a way to run guest code, with what was found out about it since the host was started.
type ProbedAccel struct {
	engine.Accel
	engine.Verdict
	Tried bool // there is a verdict
}

// Probe looks at the engines, the image and the kernel.
func (m *Manager) Probe(ctx context.Context) Probed {
	var p Probed
	p.Image, p.ImageErr = m.opts.Images.Lookup(api.DefaultImage)
	p.Kernel, p.KernelErr = m.opts.Images.LookupKernel(ctx, "")
	verdicts := engine.NewVerdicts(engine.CacheDir())
	for _, e := range m.opts.Engines.All() {
		pe := ProbedEngine{Name: e.Name()}
		pe.Caps, pe.Err = e.Probe(ctx)
		for _, a := range pe.Caps.Accels {
			pa := ProbedAccel{Accel: a}
			pa.Verdict, pa.Tried = verdicts.Lookup(engine.Trial{
				Engine: e.Name(), Build: pe.Caps.Build, Accel: a.Name, Kernel: p.Kernel.ID, UID: os.Geteuid(),
			})
			pe.Accels = append(pe.Accels, pa)
		}
		p.Engines = append(p.Engines, pe)
	}
	return p
}
