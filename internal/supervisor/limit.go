package supervisor

import (
	"context"
	"sync"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
)

// limitLife ends a VM whose time is over, and does what is to be done with one that nobody asks anything of.
func (s *supervisor) limitLife(ctx context.Context) {
	c := s.config.Config
	if ttl := time.Duration(c.TTLMs) * time.Millisecond; ttl > 0 {
		t := time.AfterFunc(ttl, func() {
			_ = s.ask(ctx, end{reason: "its time to live of " + ttl.String() + " is over", grace: defaultGrace})
		})
		context.AfterFunc(ctx, func() { t.Stop() })
	}
	s.idle.arm(ctx)
}

// idleWatch waits for a time in which there is no call.
type idleWatch struct {
	after time.Duration // 0: no such time
	do    func(ctx context.Context)

	mu    sync.Mutex
	ctx   context.Context //nolint:containedctx // the VM's life; nil before it begins
	calls int
	timer *time.Timer
}

// newIdleWatch does what the configuration says after an idle time.
func (s *supervisor) newIdleWatch() *idleWatch {
	w := &idleWatch{after: time.Duration(s.config.Config.IdleMs) * time.Millisecond}
	reason := "nobody asked anything of it for " + w.after.String()
	w.do = func(ctx context.Context) {
		switch s.config.Config.IdleAction {
		case api.IdlePause:
			if err := s.pause(ctx, true); err != nil {
				s.log.Warn("an idle VM is not paused", "error", err)
			}
		case api.IdleRemove:
			_ = s.ask(ctx, end{reason: reason, kill: true, delete: true})
		default:
			_ = s.ask(ctx, end{reason: reason, grace: defaultGrace})
		}
	}
	return w
}

// arm begins the watch.
func (w *idleWatch) arm(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx = ctx
	w.waitLocked()
	context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.after = 0
		w.stopLocked()
	})
}

func (w *idleWatch) stopLocked() {
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

// waitLocked begins the time anew, unless there are calls.
func (w *idleWatch) waitLocked() {
	w.stopLocked()
	if w.after == 0 || w.ctx == nil || w.calls > 0 {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(w.after, func() {
		w.mu.Lock()
		still := w.timer == t && w.calls == 0
		w.mu.Unlock()
		if still {
			w.do(w.ctx)
		}
	})
	w.timer = t
}

// call is told of each call, and returns what is to be told of its end. Who only looks does not count.
func (w *idleWatch) call(route string) (done func()) {
	switch route {
	case rpc.RoutePing, rpc.RouteMetrics, rpc.RouteProcs, rpc.RouteStop, rpc.RouteOwner:
		return func() {}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	w.stopLocked()
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.calls--
		w.waitLocked()
	}
}
