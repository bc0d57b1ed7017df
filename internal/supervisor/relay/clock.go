package relay

import (
	"context"
	"time"
)

// SetClock gives the guest our wall clock's time.
func (r *Relay) SetClock(ctx context.Context) error {
	guest, err := r.agent(ctx)
	if err != nil {
		return err
	}
	return guest.SetClock(ctx, time.Now())
}
