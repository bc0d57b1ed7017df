package lifecycle

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// TestWatch: what happened, and what happens, each once and in order, to the end of the VM.
func TestWatch(t *testing.T) {
	m := rig(t, "")
	started(t, m, "w1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events, done := make(chan api.Event, 100), make(chan error, 1)
	go func() {
		done <- m.Watch(ctx, EventsOptions{IDs: []string{"w1"}, Follow: true}, func(e api.Event) error { events <- e; return nil })
	}()
	want := func(kind string, state api.State) {
		t.Helper()
		for {
			select {
			case e := <-events:
				if e.VM != "w1" {
					t.Fatalf("%+v", e)
				}
				if e.Type == kind && e.State == state {
					return
				}
			case err := <-done:
				if done <- err; len(events) == 0 {
					t.Fatalf("it ended: %v", err)
				}
			}
		}
	}
	want("state", api.StateRunning)
	create(t, m, "w2", CreateOptions{}) // not asked for
	if err := m.Stop(ctx, "w1", StopOptions{}); err != nil {
		t.Fatal(err)
	}
	want("state", api.StateStopped)
	if err := m.Remove(ctx, "w1", true); err != nil {
		t.Fatal(err)
	}
	want("removed", "")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(events) != 0 {
		t.Errorf("then came %+v", <-events)
	}
	stop := errors.New("stop")
	if _, err := m.Start(ctx, "w2", nil); err != nil {
		t.Fatal(err)
	}
	if err := m.Watch(ctx, EventsOptions{}, func(api.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	if err := m.Watch(ctx, EventsOptions{Since: time.Now()}, func(e api.Event) error { t.Errorf("%+v", e); return nil }); err != nil {
		t.Errorf("%v", err)
	}
	if err := m.Watch(ctx, EventsOptions{IDs: []string{"nobody"}}, nil); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("%v", err)
	}
}
