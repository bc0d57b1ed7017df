package engine

import "fmt"

// Registry is the list of engines in this program, best first. internal/wire fills the one that users get.
type Registry struct {
	engines []Engine
}

// MustAdd appends e and panics when its name is taken: the list is written by hand.
func (r *Registry) MustAdd(e Engine) {
	for _, have := range r.engines {
		if have.Name() == e.Name() {
			panic(fmt.Sprintf("engine %q is registered twice", e.Name()))
		}
	}
	r.engines = append(r.engines, e)
}

// All returns the engines, best first.
func (r *Registry) All() []Engine { return append([]Engine(nil), r.engines...) }
