package cli_test

import (
	"context"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

func (d double) Watch(_ context.Context, o lifecycle.EventsOptions, f func(api.Event) error) error {
	call("events %v follow=%v since=%v", o.IDs, o.Follow, !o.Since.IsZero())
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, e := range []api.Event{
		{Time: at, VM: "web", Type: "state", State: api.StateRunning},
		{Time: at, VM: "old", Type: "exec", Reason: "ended \x1b[2J", Attrs: map[string]string{"main": "true", "exit_code": "3"}},
	} {
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}
