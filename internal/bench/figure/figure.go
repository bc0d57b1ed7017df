// Package figure makes what a benchmark tells of samples: medians, ratios pair by pair, and whether a goal is met.
//
// Layer: below bench.
package figure

import (
	"fmt"
	"slices"

	"github.com/smolvm/smolvm/api"
)

// Goal is a bound on a figure. The zero value is no bound: the figure is only told.
type Goal struct {
	op    string // "<=" or ">="
	bound float64
}

// AtMost is a goal that a figure is not above v.
func AtMost(v float64) Goal { return Goal{"<=", v} }

// AtLeast is a goal that a figure is not below v.
func AtLeast(v float64) Goal { return Goal{">=", v} }

// String is the goal as it is shown; empty without one.
func (g Goal) String() string {
	if g.op == "" {
		return ""
	}
	return fmt.Sprintf("%s %g", g.op, g.bound)
}

// Met reports whether v is within it.
func (g Goal) Met(v float64) bool {
	switch g.op {
	case "<=":
		return v <= g.bound
	case ">=":
		return v >= g.bound
	}
	return true
}

// New is the median of samples, judged by g.
func New(name, unit string, g Goal, samples []float64) api.Figure {
	m := Median(samples)
	return api.Figure{Name: name, Value: m, Unit: unit, Goal: g.String(), OK: len(samples) > 0 && g.Met(m), Samples: samples}
}

// Skipped is a figure that cannot be measured here.
func Skipped(name, unit string, g Goal, why string) api.Figure {
	return api.Figure{Name: name, Unit: unit, Goal: g.String(), OK: true, Samples: []float64{}, Skipped: why}
}

// Pairs are two series measured in turn, a, b, a, b: on a shared machine only their ratio pair by pair tells.
type Pairs struct{ A, B []float64 }

// Add adds a pair.
func (p *Pairs) Add(a, b float64) { p.A, p.B = append(p.A, a), append(p.B, b) }

// Ratios returns a/b pair by pair.
func (p *Pairs) Ratios() []float64 {
	out := make([]float64, len(p.A))
	for i := range p.A {
		out[i] = p.A[i] / p.B[i]
	}
	return out
}

// Figures returns the judged ratio and, without goals, the two series.
func (p *Pairs) Figures(name string, g Goal, nameA, nameB, unit string) []api.Figure {
	return []api.Figure{
		New(name, "ratio", g, p.Ratios()),
		New(nameA, unit, Goal{}, p.A),
		New(nameB, unit, Goal{}, p.B),
	}
}

// Median returns the middle of v, 0 of nothing.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
