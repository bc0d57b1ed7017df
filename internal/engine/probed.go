package engine

import (
	"context"
	"os"
)

// Probed is what can be told of an engine without starting a machine.
type Probed struct {
	Name   string
	Caps   Caps
	Err    error // it cannot be used
	Accels []ProbedAccel
}

// ProbedAccel is a way to run guest code, with what was found out about it since the host was started.
type ProbedAccel struct {
	Accel
	Verdict
	Tried bool // there is a verdict
}

// Probe looks at all engines; kernel is the one that their verdicts are about.
func (r *Registry) Probe(ctx context.Context, kernel string) []Probed {
	verdicts := NewVerdicts(CacheDir())
	var all []Probed
	for _, e := range r.All() {
		p := Probed{Name: e.Name()}
		p.Caps, p.Err = e.Probe(ctx)
		for _, a := range p.Caps.Accels {
			pa := ProbedAccel{Accel: a}
			pa.Verdict, pa.Tried = verdicts.Lookup(Trial{Engine: e.Name(), Build: p.Caps.Build, Accel: a.Name, Kernel: kernel, UID: os.Geteuid()})
			p.Accels = append(p.Accels, pa)
		}
		all = append(all, p)
	}
	return all
}
