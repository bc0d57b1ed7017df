package lifecycle

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/budget"
)

// TestBudget: of many starts at once as many come through as there is room for; the others change nothing.
func TestBudget(t *testing.T) {
	for name, budget := range map[string]budget.Budget{
		"memory": {MemoryMiB: 4 * 1024},
		"VMs":    {VMs: 3},
	} {
		t.Run(name, func(t *testing.T) {
			m := rig(t, "")
			m.opts.Budget = budget
			var up, refused atomic.Int32
			var all sync.WaitGroup
			for i := range 6 {
				id := fmt.Sprintf("vm%d", i)
				create(t, m, id, CreateOptions{})
				all.Go(func() {
					_, err := m.Start(t.Context(), id, nil)
					switch {
					case err == nil:
						up.Add(1)
					case errdefs.Is(err, errdefs.Exhausted) && errdefs.RemedyOf(err) != "":
						refused.Add(1)
						state(t, m, id, "created", "")
					default:
						t.Error(err)
					}
				})
			}
			all.Wait()
			if up.Load() != 3 || refused.Load() != 3 {
				t.Errorf("%d run, %d were refused", up.Load(), refused.Load())
			}
			// One that has ended makes room, however it ended.
			boxes, err := m.List(t.Context(), false)
			if err != nil || len(boxes) != 3 {
				t.Fatal(boxes, err)
			}
			if err := m.Stop(t.Context(), boxes[0].ID, StopOptions{Kill: true}); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Start(t.Context(), boxes[0].ID, nil); err != nil {
				t.Error(err)
			}
		})
	}
}
