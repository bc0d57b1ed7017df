package lifecycle

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/network/audit"
)

func mode(t *testing.T, m *Manager, id string, want api.NetworkMode) {
	t.Helper()
	box, err := m.Inspect(t.Context(), id, false)
	if err != nil || box.Network.Mode != want {
		t.Errorf("%s has %+v (%v), want mode %s", id, box.Network, err, want)
	}
}

func TestSetNetwork(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	bad := api.NetworkPolicy{Mode: api.NetOpen, Rules: []api.NetworkRule{{Action: api.RuleDeny, Host: "a.example"}}}
	if _, err := m.Create(ctx, api.Config{ID: "bad", DiskMiB: 256, Network: bad}, CreateOptions{}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("a policy that cannot be enforced: %v", err)
	}
	if m.store.Exists("bad") {
		t.Error("and there is a VM")
	}
	create(t, m, "one", CreateOptions{})
	mode(t, m, "one", api.NetOpen)
	if err := m.SetNetwork(ctx, "one", api.NetworkPolicy{Mode: api.NetNone}); err != nil {
		t.Fatal(err)
	}
	mode(t, m, "one", api.NetNone)
	if err := m.SetNetwork(ctx, "one", bad); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("set one that cannot be enforced: %v", err)
	}
	if err := m.SetNetwork(ctx, "absent", api.NetworkPolicy{}); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("of an absent VM: %v", err)
	}
	if _, err := m.Start(ctx, "one", nil); err != nil {
		t.Fatal(err)
	}
	mode(t, m, "one", api.NetNone)
	allow := api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{{Action: api.RuleAllow, Host: "a.example", Ports: []string{"443"}}}}
	if err := m.SetNetwork(ctx, "one", allow); err != nil {
		t.Fatal(err)
	}
	mode(t, m, "one", api.NetAllow)
	if err := m.Stop(ctx, "one", StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start(ctx, "one", nil); err != nil {
		t.Fatal(err)
	}
	mode(t, m, "one", api.NetAllow)
	if rec, err := m.store.Read("one"); err != nil || rec.Config.Config.Network.Mode != api.NetOpen || len(rec.Policy().Rules) != 1 {
		t.Errorf("the record: %+v, %v", rec, err)
	}
	events, err := m.Events(ctx, "one")
	if err != nil || !slices.ContainsFunc(events, func(e api.Event) bool { return e.Type == "network" && e.Reason == "allow, 1 rule" }) {
		t.Errorf("the events: %+v, %v", events, err)
	}
	// A policy that cannot be read is not replaced by one that may allow more.
	if err := m.Stop(ctx, "one", StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.store.Path("one", "network.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start(ctx, "one", nil); err == nil {
		t.Error("it starts with a broken policy")
	}
}

func TestNetworkLog(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	create(t, m, "one", CreateOptions{})
	none := func(api.NetRecord) error { return errors.New("there is a record") }
	if err := m.NetworkLog(ctx, "one", true, none); err != nil { // a VM that does not run has nothing to wait for
		t.Error(err)
	}
	for _, err := range []error{m.NetworkLog(ctx, "absent", false, none), func() error { _, err := m.NetworkStats(ctx, "absent"); return err }()} {
		if !errdefs.Is(err, errdefs.NotFound) {
			t.Errorf("of an absent VM: %v", err)
		}
	}
	dir := m.store.Dir("one")
	w, err := audit.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	w.Add(api.NetRecord{Kind: "dns", Name: "a.example", Verdict: "deny"})
	_ = w.Close()
	if s, err := m.NetworkStats(ctx, "one"); err != nil || s.DNSDenied != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := m.Start(ctx, "one", nil); err != nil {
		t.Fatal(err)
	}
	seen, done := make(chan string, 9), make(chan error, 1)
	go func() {
		done <- m.NetworkLog(ctx, "one", true, func(r api.NetRecord) error { seen <- r.Name; return nil })
	}()
	next := func(want string) {
		t.Helper()
		select {
		case got := <-seen:
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no %q", want)
		}
	}
	next("a.example")
	// Another process writes, and then the files change.
	former, err := os.ReadFile(filepath.Join(dir, audit.File))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, audit.File), append(former, `{"kind":"tcp","name":"b.example","verdict":"allow"}`+"\n"...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	next("b.example")
	if err := os.Rename(filepath.Join(dir, audit.File), filepath.Join(dir, audit.Former)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, audit.File), []byte(`{"kind":"tcp","name":"c.example"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	next("c.example")
	if err := m.Stop(ctx, "one", StopOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on after the VM's end")
	}
}
