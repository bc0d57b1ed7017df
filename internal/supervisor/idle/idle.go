// Package idle waits for a time in which nobody asks anything of a VM.
//
// Layer: part of supervisor. It imports none of ours.
package idle

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Watch waits for a whole time without calls and without bytes.
type Watch struct {
	do    func(ctx context.Context)
	began time.Time
	last  atomic.Int64 // when Touch was called, after began; no lock, because there may be many bytes

	mu    sync.Mutex
	after time.Duration   // 0: no such time
	ctx   context.Context //nolint:containedctx // the VM's life; nil before it begins
	calls int
	timer *time.Timer
	turn  int // counts the timers, so that one which fires just as it is stopped is told from the next
}

// New returns a Watch that does something after an idle time; after 0 it never does.
func New(after time.Duration, do func(ctx context.Context)) *Watch {
	return &Watch{after: after, do: do, began: time.Now()}
}

// Arm begins the watch, which ends with ctx.
func (w *Watch) Arm(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx = ctx
	w.waitLocked(w.after)
	context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.after = 0
		w.stopLocked()
	})
}

func (w *Watch) stopLocked() {
	w.turn++
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

// waitLocked waits anew, unless there are calls.
func (w *Watch) waitLocked(rest time.Duration) {
	w.stopLocked()
	if w.after == 0 || w.ctx == nil || w.calls > 0 {
		return
	}
	ctx, turn := w.ctx, w.turn
	w.timer = time.AfterFunc(rest, func() {
		if w.over(turn) {
			w.do(ctx)
		}
	})
}

// over reports whether the time of a turn is over. Where something was touched meanwhile, the rest is waited for.
func (w *Watch) over(turn int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.turn != turn {
		return false
	}
	last := time.Duration(w.last.Load())
	if rest := w.after - (time.Since(w.began) - last); last > 0 && rest > 0 {
		w.waitLocked(rest)
		return false
	}
	return true
}

// Touch says that something happens just now.
func (w *Watch) Touch() { w.last.Store(int64(max(1, time.Since(w.began)))) }

// Call says that something begins, and returns what is to be called at its end.
func (w *Watch) Call() (done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	w.stopLocked()
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.calls--
		w.waitLocked(w.after)
	}
}
