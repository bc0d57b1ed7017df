package lifecycle

import (
	"context"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/store"
)

// EventsOptions say which events are wanted.
type EventsOptions = store.EventsOptions

// Watch passes events on: those that are kept, in the order of their time, and with Follow those that come.
func (m *Manager) Watch(ctx context.Context, o EventsOptions, f func(api.Event) error) error {
	m.sweep()
	for _, id := range o.IDs {
		if _, err := m.settle(ctx, id); errdefs.Is(err, errdefs.NotFound) || errdefs.Is(err, errdefs.Invalid) {
			return err
		}
	}
	return m.store.Watch(ctx, o, f)
}
