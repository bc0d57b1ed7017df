package supervisor

import (
	"context"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/supervisor/idle"
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
	s.idle.Arm(ctx)
}

// newIdleWatch does what the configuration says after an idle time.
func (s *supervisor) newIdleWatch() *idle.Watch {
	after := time.Duration(s.config.Config.IdleMs) * time.Millisecond
	reason := "nobody asked anything of it for " + after.String()
	return idle.New(after, func(ctx context.Context) {
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
	})
}

// counted is told of each call, and returns what is to be told of its end. Who only looks does not count.
func (s *supervisor) counted(route string) (done func()) {
	switch route {
	case rpc.RoutePing, rpc.RouteMetrics, rpc.RouteProcs, rpc.RouteStop, rpc.RouteOwner:
		return func() {}
	}
	return s.idle.Call()
}
