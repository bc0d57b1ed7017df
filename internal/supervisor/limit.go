package supervisor

import (
	"context"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/idle"
	"github.com/smolvm/smolvm/internal/supervisor/lifespan"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
)

// newLifespan ends the VM whose time is over, and deletes that of nobody.
func (s *supervisor) newLifespan() *lifespan.Watch {
	return lifespan.New(func(ctx context.Context, reason string) {
		_ = s.ask(ctx, end{reason: reason, grace: defaultGrace})
	}, func(ctx context.Context, reason string) {
		_ = s.ask(ctx, end{reason: reason, kill: true, delete: true})
	})
}

// setExpiry begins to count the time to live, and shows when it is over.
func (s *supervisor) setExpiry(ctx context.Context, ttlMs int64) {
	at := s.life.SetTTL(ctx, time.Duration(ttlMs)*time.Millisecond)
	if st := s.snapshot(); at == nil && st.ExpiresAt == nil {
		return
	}
	if err := s.save(func(st *store.State) { st.ExpiresAt = at }); err != nil {
		s.log.Warn("the record does not tell when the VM ends", "error", err)
	}
}

// setTTL changes the time to live, from now on and for starts to come.
func (s *supervisor) setTTL(ctx context.Context, r rpc.TTLRequest) (rpc.Nothing, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	if st := s.snapshot().State; st != api.StateRunning && st != api.StatePaused {
		return rpc.Nothing{}, errdefs.WrongState.Errorf("the VM %s is %s", s.id, st).WithRemedy("smolvm inspect %s", s.id)
	}
	_, err := s.store.ChangeConfig(ctx, s.id, func(c *api.Config) error { c.TTLMs = r.TTLMs; return nil })
	if err == nil {
		s.setExpiry(context.WithoutCancel(ctx), r.TTLMs) // it outlives the call
	}
	return rpc.Nothing{}, err
}

// setEnv changes the environment of commands: it is kept, then the guest gets it. On an error, both have the former one.
func (s *supervisor) setEnv(ctx context.Context, change api.EnvChange) (rpc.EnvResponse, error) {
	s.envs.Lock()
	defer s.envs.Unlock()
	if err := s.ready(); err != nil {
		return rpc.EnvResponse{}, err
	}
	env, err := s.store.ChangeEnv(ctx, s.id, change, func(env map[string]string) error { return s.relay.SetEnv(ctx, env) })
	return rpc.EnvResponse{Env: env}, err
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
	case rpc.RoutePing, rpc.RouteMetrics, rpc.RouteProcs, rpc.RouteStop, rpc.RouteOwner, rpc.RouteTTL:
		return func() {}
	}
	return s.idle.Call()
}
