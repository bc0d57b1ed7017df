package bench

import (
	"fmt"
	"slices"

	"github.com/smolvm/smolvm/api"
)

// goal is a bound on a figure. The zero value is no bound: the figure is only told.
type goal struct {
	op    string // "<=" or ">="
	bound float64
}

func atMost(v float64) goal  { return goal{"<=", v} }
func atLeast(v float64) goal { return goal{">=", v} }

func (g goal) String() string {
	if g.op == "" {
		return ""
	}
	return fmt.Sprintf("%s %g", g.op, g.bound)
}

func (g goal) met(v float64) bool {
	switch g.op {
	case "<=":
		return v <= g.bound
	case ">=":
		return v >= g.bound
	}
	return true
}

// figure is the median of samples, judged by g.
func figure(name, unit string, g goal, samples []float64) api.Figure {
	m := median(samples)
	return api.Figure{Name: name, Value: m, Unit: unit, Goal: g.String(), OK: len(samples) > 0 && g.met(m), Samples: samples}
}

// skipped is a figure that cannot be measured here.
func skipped(name, unit string, g goal, why string) api.Figure {
	return api.Figure{Name: name, Unit: unit, Goal: g.String(), OK: true, Samples: []float64{}, Skipped: why}
}

// pairs are two series measured in turn, a, b, a, b: on a shared machine only their ratio pair by pair tells.
type pairs struct{ a, b []float64 }

func (p *pairs) add(a, b float64) { p.a, p.b = append(p.a, a), append(p.b, b) }

// ratios returns a/b pair by pair.
func (p *pairs) ratios() []float64 {
	out := make([]float64, len(p.a))
	for i := range p.a {
		out[i] = p.a[i] / p.b[i]
	}
	return out
}

// figures returns the judged ratio and, without goals, the two series.
func (p *pairs) figures(name string, g goal, nameA, nameB, unit string) []api.Figure {
	return []api.Figure{
		figure(name, "ratio", g, p.ratios()),
		figure(nameA, unit, goal{}, p.a),
		figure(nameB, unit, goal{}, p.b),
	}
}

// median returns the middle of v, 0 of nothing.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
