package engine

import (
	"context"
	"slices"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// Auto is the name of no engine: it stands for whichever fits. "" is the same.
const Auto = "auto"

// Candidate is a way to run a machine: an engine with one of its accelerators.
type Candidate struct {
	Engine Engine
	Caps   Caps
	Accel  Accel
}

// String is the accelerator, with its engine.
func (c Candidate) String() string { return c.Accel.Name + " with " + c.Engine.Name() }

// Check refuses what is neither an engine's name nor Auto.
func (r *Registry) Check(name string) error {
	names := []string{Auto}
	for _, e := range r.engines {
		names = append(names, e.Name())
	}
	if name == "" || slices.Contains(names, name) {
		return nil
	}
	return errdefs.Invalid.Errorf("engine %q: it is none of %s", name, strings.Join(names, ", "))
}

// Choose returns the ways to run a machine on the engine called name, best first: hardware before emulation, and each in the
// registry's order. With Auto an engine that cannot be used here is passed over; its error is returned when there is none
// that can.
func (r *Registry) Choose(ctx context.Context, name string) ([]Candidate, error) {
	if err := r.Check(name); err != nil {
		return nil, err
	}
	auto := name == "" || name == Auto
	var found []Candidate
	var failed error
	for _, e := range r.engines {
		if !auto && e.Name() != name {
			continue
		}
		caps, err := e.Probe(ctx)
		if err != nil {
			failed = err // the last one's, which is the one that works on most hosts
			continue
		}
		for _, a := range caps.Accels {
			found = append(found, Candidate{Engine: e, Caps: caps, Accel: a})
		}
	}
	if len(found) == 0 {
		if failed == nil {
			failed = errdefs.Internal.Errorf("there is no engine in this program")
		}
		return nil, failed
	}
	slices.SortStableFunc(found, func(a, b Candidate) int {
		switch {
		case a.Accel.Emulated == b.Accel.Emulated:
			return 0
		case b.Accel.Emulated:
			return -1
		}
		return 1
	})
	return found, nil
}
