package bench

import (
	"testing"
)

// TestSkipped: a figure that cannot be measured says why and misses no goal.
func TestSkipped(t *testing.T) {
	got := skipped("TAP", "ratio", atLeast(2), "needs root")
	if !got.OK || got.Skipped != "needs root" || got.Goal != ">= 2" || got.Samples == nil {
		t.Errorf("%+v", got)
	}
	if f := figure("TAP", "ratio", atLeast(2), []float64{1}); f.OK || f.Skipped != "" {
		t.Errorf("%+v", f)
	}
}
