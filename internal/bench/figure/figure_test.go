package figure

import (
	"os"
	"testing"
	"time"
)

// TestProcessorSeconds: a process that works for a while has had a processor for no longer than that, and for some of it.
func TestProcessorSeconds(t *testing.T) {
	before, err := ProcessorSeconds(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	begun, after := time.Now(), before
	for after < before+0.1 && time.Since(begun) < time.Minute {
		for range 1 << 20 { // work
		}
		if after, err = ProcessorSeconds(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if after < before+0.1 {
		t.Errorf("%v and, a minute of work later, %v", before, after)
	}
	if _, err := ProcessorSeconds(0); err == nil {
		t.Error("there is no process 0")
	}
}

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
			if got := Median(tc.in); got != tc.want {
				t.Errorf("Median(%v) = %v, want %v", tc.in, got, tc.want)
			}
		})
	}
}

func TestGoals(t *testing.T) {
	for _, tc := range []struct {
		name string
		g    Goal
		v    float64
		want bool
		text string
	}{
		{"none", Goal{}, 1e9, true, ""},
		{"at most, on it", AtMost(1.2), 1.2, true, "<= 1.2"},
		{"at most, over", AtMost(1.2), 1.21, false, "<= 1.2"},
		{"at least, on it", AtLeast(0.4), 0.4, true, ">= 0.4"},
		{"at least, under", AtLeast(0.4), 0.39, false, ">= 0.4"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.g.Met(tc.v); got != tc.want {
				t.Errorf("met(%v) = %v", tc.v, got)
			}
			if got := tc.g.String(); got != tc.text {
				t.Errorf("String = %q, want %q", got, tc.text)
			}
		})
	}
}

func TestFigureWithoutSamplesIsNotOK(t *testing.T) {
	if New("x", "s", Goal{}, nil).OK {
		t.Error("a figure that was not measured counts as good")
	}
}

func TestRatiosArePaired(t *testing.T) {
	var p Pairs
	p.Add(10, 5) // the machine was slow
	p.Add(2, 1)  // and then quick
	p.Add(3, 2)
	f := p.Figures("r", AtMost(2), "a", "b", "s")
	if f[0].Value != 2 || !f[0].OK || f[1].Value != 3 || f[2].Value != 2 {
		t.Errorf("figures = %+v", f)
	}
}

// TestSkipped: a figure that cannot be measured says why and misses no goal.
func TestSkipped(t *testing.T) {
	got := Skipped("TAP", "ratio", AtLeast(2), "needs root")
	if !got.OK || got.Skipped != "needs root" || got.Goal != ">= 2" || got.Samples == nil {
		t.Errorf("%+v", got)
	}
	if f := New("TAP", "ratio", AtLeast(2), []float64{1}); f.OK || f.Skipped != "" {
		t.Errorf("%+v", f)
	}
}
