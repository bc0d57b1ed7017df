package lifespan

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/store"
)

// rig is a watch whose words come over channels.
func rig() (w *Watch, over, gone chan string) {
	over, gone = make(chan string, 8), make(chan string, 8)
	tell := func(c chan string) func(context.Context, string) {
		return func(_ context.Context, reason string) { c <- reason }
	}
	return New(tell(over), tell(gone)), over, gone
}

func says(t *testing.T, c chan string, want string) {
	t.Helper()
	select {
	case got := <-c:
		if want == "" || !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	case <-time.After(5 * time.Second):
		t.Errorf("nothing was said of %q", want)
	}
}

func silent(t *testing.T, c chan string, d time.Duration) {
	t.Helper()
	select {
	case got := <-c:
		t.Errorf("%q", got)
	case <-time.After(d):
	}
}

func TestTTL(t *testing.T) {
	w, over, _ := rig()
	if at := w.SetTTL(t.Context(), time.Hour); at == nil || time.Until(*at) > time.Hour || time.Until(*at) < 59*time.Minute {
		t.Errorf("it ends at %v", at)
	}
	w.SetTTL(t.Context(), 20*time.Millisecond)
	says(t, over, "time to live of 20ms is over")
	w.SetTTL(t.Context(), 50*time.Millisecond)
	if at := w.SetTTL(t.Context(), 0); at != nil {
		t.Errorf("without a time to live it ends at %v", at)
	}
	silent(t, over, 100*time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	w.SetTTL(ctx, 50*time.Millisecond)
	cancel()
	silent(t, over, 100*time.Millisecond)
}

func lease(t *testing.T, ms int64) store.Rule {
	t.Helper()
	rule, err := store.NewRule(api.OwnerRequest{Owner: api.OwnerLease, LeaseMs: ms})
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

// TestLease: it lapses unless it is renewed, and not after it was given up.
func TestLease(t *testing.T) {
	w, _, gone := rig()
	for range 4 {
		if err := w.Follow(t.Context(), lease(t, 1000)); err != nil {
			t.Fatal(err)
		}
		silent(t, gone, 400*time.Millisecond)
	}
	says(t, gone, "nobody renewed its lease of 1s")
	if err := w.Follow(t.Context(), lease(t, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := w.Follow(t.Context(), store.Rule{Owner: api.OwnerKeep}); err != nil {
		t.Fatal(err)
	}
	silent(t, gone, 1200*time.Millisecond)
	old := lease(t, 1000)
	old.Lease.Until = 1 // lapsed before anybody watched
	if err := w.Follow(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	says(t, gone, "lease")
}

func TestClient(t *testing.T) {
	w, _, gone := rig()
	client := exec.CommandContext(t.Context(), "sleep", "60")
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	rule, err := store.NewRule(api.OwnerRequest{Owner: api.OwnerClient, ClientPID: client.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Follow(t.Context(), rule); err != nil {
		t.Fatal(err)
	}
	silent(t, gone, 50*time.Millisecond)
	_ = client.Process.Kill()
	_ = client.Wait()
	says(t, gone, "its client is gone")
	if err := w.Follow(t.Context(), rule); err != nil {
		t.Fatal(err)
	}
	says(t, gone, "its client is gone")
}
