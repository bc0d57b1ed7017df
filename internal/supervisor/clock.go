package supervisor

import (
	"context"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/sys/clock"
)

const (
	clockEvery = 10 * time.Minute // what a guest's clock drifts by meanwhile nobody notices
	clockWait  = 10 * time.Second
)

// keepClock sets the guest's clock every now and then, and at once when ours jumps: it was set, or the host slept.
func (s *supervisor) keepClock(ctx context.Context) {
	w, err := clock.NewWatch()
	if err != nil {
		s.log.Warn("the guest's clock is not kept", "error", err)
		return
	}
	defer func() { _ = w.Close() }()
	for {
		jumped, err := w.Wait(ctx, clockEvery)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Warn("the guest's clock is not kept any more", "error", err)
			return
		}
		if jumped {
			s.log.Info("the host's clock jumped")
		}
		s.setClock(ctx)
	}
}

// setClock gives the guest our time, if it runs. A paused one gets it when it goes on: its own clock stood still.
func (s *supervisor) setClock(ctx context.Context) {
	if s.snapshot().State != api.StateRunning {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, clockWait)
	defer cancel()
	if err := s.relay.SetClock(ctx); err != nil {
		s.log.Warn("the guest's clock is not set", "error", err)
	}
}
