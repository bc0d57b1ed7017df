package idle

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestIdle: only a whole time without calls counts.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var fired atomic.Int32
		w := New(time.Minute, func(context.Context) { fired.Add(1) })
		w.Call()()
		time.Sleep(2 * time.Minute)
		if fired.Load() != 0 {
			t.Error("before it began")
		}
		w.Arm(ctx)
		time.Sleep(59 * time.Second)
		one, two := w.Call(), w.Call()
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
		w.Call()()
		cancel()
		time.Sleep(time.Hour)
		synctest.Wait()
		if fired.Load() != 1 {
			t.Error("after the end")
		}
	})
}

// TestTouched: bytes begin the time anew, however many, and also before it began.
func TestTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var fired atomic.Int32
		w := New(time.Minute, func(context.Context) { fired.Add(1) })
		w.Touch()
		w.Arm(ctx)
		for range 100 {
			time.Sleep(50 * time.Second)
			for range 10 {
				w.Touch()
			}
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if fired.Load() != 0 {
			t.Errorf("it fired %d times although it was touched", fired.Load())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if fired.Load() != 1 {
			t.Errorf("it fired %d times", fired.Load())
		}
	})
}
