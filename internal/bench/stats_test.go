package bench

import (
	"testing"

	"github.com/smolvm/smolvm/internal/bench/house"
)

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []float64
		want float64
	}{
		{"empty", nil, 0},
		{"one", []float64{3}, 3},
		{"odd", []float64{9, 1, 5}, 5},
		{"even", []float64{4, 1, 3, 2}, 2.5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := median(tc.in); got != tc.want {
				t.Errorf("median(%v) = %v, want %v", tc.in, got, tc.want)
			}
		})
	}
}

func TestGoals(t *testing.T) {
	for _, tc := range []struct {
		name string
		g    goal
		v    float64
		want bool
		text string
	}{
		{"none", goal{}, 1e9, true, ""},
		{"at most, on it", atMost(1.2), 1.2, true, "<= 1.2"},
		{"at most, over", atMost(1.2), 1.21, false, "<= 1.2"},
		{"at least, on it", atLeast(0.4), 0.4, true, ">= 0.4"},
		{"at least, under", atLeast(0.4), 0.39, false, ">= 0.4"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.g.met(tc.v); got != tc.want {
				t.Errorf("met(%v) = %v", tc.v, got)
			}
			if got := tc.g.String(); got != tc.text {
				t.Errorf("String = %q, want %q", got, tc.text)
			}
		})
	}
}

func TestFigureWithoutSamplesIsNotOK(t *testing.T) {
	if figure("x", "s", goal{}, nil).OK {
		t.Error("a figure that was not measured counts as good")
	}
}

func TestRatiosArePaired(t *testing.T) {
	var p pairs
	p.add(10, 5) // the machine was slow
	p.add(2, 1)  // and then quick
	p.add(3, 2)
	f := p.figures("r", atMost(2), "a", "b", "s")
	if f[0].Value != 2 || !f[0].OK || f[1].Value != 3 || f[2].Value != 2 {
		t.Errorf("figures = %+v", f)
	}
}

// TestGrown: what grew misses its goal, what did not does not.
func TestGrown(t *testing.T) {
	for _, f := range grown(house.Use{Disk: 100 << 10, FDs: 7}, house.Use{Disk: 200 << 10, VMs: 2, FDs: 8}) {
		if f.OK != (f.Name == "processes left") {
			t.Errorf("%+v", f)
		}
	}
}
