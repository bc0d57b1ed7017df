package supervisor

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smolvm/smolvm/internal/supervisor/rpc"
)

// TestIdle: only a whole time without calls counts, and looking is none.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var fired atomic.Int32
		w := &idleWatch{after: time.Minute, do: func(context.Context) { fired.Add(1) }}
		w.call(rpc.RouteExec)()
		time.Sleep(2 * time.Minute)
		if fired.Load() != 0 {
			t.Error("before it began")
		}
		w.arm(ctx)
		time.Sleep(59 * time.Second)
		w.call(rpc.RouteMetrics)()
		one, two := w.call(rpc.RouteExec), w.call(rpc.RouteAttach)
		time.Sleep(time.Hour)
		one()
		time.Sleep(time.Hour)
		if fired.Load() != 0 {
			t.Error("during a call")
		}
		two()
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if fired.Load() != 0 {
			t.Error("too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if fired.Load() != 1 {
			t.Errorf("it fired %d times", fired.Load())
		}
		w.call(rpc.RouteExec)()
		cancel()
		time.Sleep(time.Hour)
		synctest.Wait()
		if fired.Load() != 1 {
			t.Error("after the end")
		}
	})
}
