// Package lifespan ends a VM that may not go on: its time to live is over, its owner's process is gone, nobody renewed its lease.
//
// Layer: part of the supervisor. It may import store, api, errdefs, internal/sys.
package lifespan

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/sys/pidfd"
)

// Watch watches over one VM.
type Watch struct {
	over, gone func(ctx context.Context, reason string)

	mu    sync.Mutex
	ttl   *time.Timer        // nil: none
	owner context.CancelFunc // ends the watch on the present owner
}

// New returns a watch that watches nothing yet. over is called when the time to live is over, gone when the VM's owner is; the
// context of either ends when that is not true any more.
func New(over, gone func(ctx context.Context, reason string)) *Watch {
	return &Watch{over: over, gone: gone}
}

// SetTTL has the VM end when ttl is over, from now on and whatever was said before; 0 = it may go on. It returns when that is.
func (w *Watch) SetTTL(ctx context.Context, ttl time.Duration) *time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ttl != nil {
		w.ttl.Stop()
		w.ttl = nil
	}
	if ttl <= 0 {
		return nil
	}
	t := time.AfterFunc(ttl, func() { w.over(ctx, "its time to live of "+ttl.String()+" is over") })
	context.AfterFunc(ctx, func() { t.Stop() })
	w.ttl = t
	at := time.Now().Add(ttl).UTC()
	return &at
}

// Follow watches the owner that the rule names, and no former one. One that is gone already ends the VM at once.
func (w *Watch) Follow(ctx context.Context, rule store.Rule) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owner != nil {
		w.owner()
		w.owner = nil
	}
	var wait func(context.Context) error
	switch rule.Owner {
	case api.OwnerClient:
		fd, err := pidfd.Open(rule.Client.PID, rule.Client.StartTicks)
		if err != nil && !errors.Is(err, pidfd.ErrGone) {
			return errdefs.Host.Errorf("watch the client: %w", err)
		}
		wait = func(ctx context.Context) error {
			if fd == nil {
				return nil
			}
			defer func() { _ = fd.Close() }()
			return fd.Wait(ctx)
		}
	case api.OwnerLease:
		wait = func(ctx context.Context) error { return lapsed(ctx, *rule.Lease) }
	default:
		return nil
	}
	watch, cancel := context.WithCancel(ctx)
	w.owner = cancel
	go func() {
		// Both at once: he let go of the VM before he went.
		if wait(watch) == nil && watch.Err() == nil {
			w.gone(watch, rule.AbandonedReason())
		}
	}()
	return nil
}

// lapsed waits until a lease does not hold any more.
func lapsed(ctx context.Context, l store.Lease) error {
	for left := l.Left(); left > 0; left = l.Left() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(left):
		}
	}
	return nil
}
