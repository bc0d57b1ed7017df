package bench

import (
	"testing"

	"github.com/smolvm/smolvm/internal/bench/house"
)

// TestGrown: what grew misses its goal, what did not does not.
func TestGrown(t *testing.T) {
	for _, f := range grown(house.Use{Disk: 100 << 10, FDs: 7}, house.Use{Disk: 200 << 10, VMs: 2, FDs: 8}) {
		if f.OK != (f.Name == "processes left") {
			t.Errorf("%+v", f)
		}
	}
}
