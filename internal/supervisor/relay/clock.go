package relay

import (
	"context"
	"log/slog"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/clock"
)

const (
	clockEvery = 10 * time.Minute // what a guest's clock drifts by meanwhile nobody notices
	clockWait  = 10 * time.Second
)

// KeepClock sets the guest's clock every now and then, and at once when ours jumps: it was set, or the host slept.
func (r *Relay) KeepClock(ctx context.Context, log *slog.Logger) {
	w, err := clock.NewWatch()
	if err != nil {
		log.Warn("the guest's clock is not kept", "error", err)
		return
	}
	defer func() { _ = w.Close() }()
	for {
		jumped, err := w.Wait(ctx, clockEvery)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Warn("the guest's clock is not kept any more", "error", err)
			return
		}
		if jumped {
			log.Info("the host's clock jumped")
		}
		r.SetClock(ctx, log)
	}
}

// SetClock gives the guest our time, if it runs. A paused one gets it when it goes on: its own clock stood still.
func (r *Relay) SetClock(ctx context.Context, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, clockWait)
	defer cancel()
	guest, err := r.agent(ctx)
	if err == nil {
		err = guest.SetClock(ctx, time.Now())
	}
	if err != nil && !errdefs.Is(err, errdefs.WrongState) {
		log.Warn("the guest's clock is not set", "error", err)
	}
}
