package store

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/clock"
)

// TestRule: who owns a VM, and when nobody does any more.
func TestRule(t *testing.T) {
	boot, err := HostBootID()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), "sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	abandoned := func(r api.OwnerRequest, bootID string) bool {
		t.Helper()
		rule, err := NewRule(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := rule.check(); err != nil {
			t.Error(err)
		}
		s := State{BootID: bootID}
		s.SetRule(rule)
		return s.Abandoned()
	}
	for _, r := range []api.OwnerRequest{{}, {Owner: api.OwnerKeep}, {Owner: api.OwnerClient}, {Owner: api.OwnerClient, ClientPID: child.Process.Pid}, {Owner: api.OwnerLease}, {Owner: api.OwnerLease, LeaseMs: 1000}} {
		if abandoned(r, boot) {
			t.Errorf("%+v is abandoned at once", r)
		}
		if keeps := r.Owner != api.OwnerClient && r.Owner != api.OwnerLease; abandoned(r, "another boot") == keeps {
			t.Errorf("%+v after a restart of the host", r)
		}
	}
	rule, err := NewRule(api.OwnerRequest{Owner: api.OwnerClient, ClientPID: child.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	s := State{BootID: boot}
	s.SetRule(rule)
	if !s.Abandoned() || !strings.Contains(rule.AbandonedReason(), "client") {
		t.Error("its client is gone")
	}
	s.SetRule(Rule{Owner: api.OwnerLease, Lease: &Lease{For: time.Minute, Until: clock.Monotonic() - 1}})
	if !s.Abandoned() || !strings.Contains(s.Rule().AbandonedReason(), "lease of 1m") {
		t.Error("its lease has lapsed")
	}
	for _, r := range []Rule{{}, {Owner: "x"}, {Owner: api.OwnerClient}, {Owner: api.OwnerLease}, {Owner: api.OwnerLease, Lease: &Lease{}}} {
		if r.check() == nil {
			t.Errorf("%+v is no rule", r)
		}
	}
}

// TestRuleRefuses: what is no owner, and processes that are not ours.
func TestRuleRefuses(t *testing.T) {
	for _, r := range []api.OwnerRequest{
		{Owner: "x"},
		{Owner: api.OwnerKeep, ClientPID: 1},
		{Owner: api.OwnerClient, ClientPID: -1},
		{Owner: api.OwnerClient, LeaseMs: 1000},
		{Owner: api.OwnerLease, LeaseMs: 999},
		{Owner: api.OwnerLease, LeaseMs: -1},
		{Owner: api.OwnerLease, LeaseMs: 1 << 40},
		{Owner: api.OwnerClient, ClientPID: 1 << 30},
	} {
		if rule, err := NewRule(r); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("%+v: %+v, %v", r, rule, err)
		}
	}
	// Some process of another user's.
	other := 1
	if os.Geteuid() == 0 {
		cmd := exec.CommandContext(t.Context(), "setpriv", "--reuid=65534", "sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Skip("there is no setpriv here")
		}
		defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
		other = cmd.Process.Pid
	}
	var err error
	for begun := time.Now(); time.Since(begun) < 5*time.Second; time.Sleep(10 * time.Millisecond) { // it has to become that user first
		if _, err = NewRule(api.OwnerRequest{Owner: api.OwnerClient, ClientPID: other}); err != nil {
			break
		}
	}
	if !errdefs.Is(err, errdefs.Denied) {
		t.Errorf("a process of another user's: %v", err)
	}
}

// TestChangeEnv: what is refused leaves the record as it was.
func TestChangeEnv(t *testing.T) {
	s := open(t)
	publish(t, s, "x")
	change := func(c api.EnvChange) (map[string]string, error) { return s.ChangeEnv(t.Context(), "x", c, nil) }
	if env, err := change(api.EnvChange{Set: map[string]string{"A": "1", "B": "2"}}); err != nil || len(env) != 2 {
		t.Errorf("%v, %v", env, err)
	}
	if env, err := change(api.EnvChange{Set: map[string]string{"C": ""}, Unset: []string{"A", "absent"}}); err != nil || len(env) != 2 || env["B"] != "2" {
		t.Errorf("%v, %v", env, err)
	}
	if env, err := change(api.EnvChange{Set: map[string]string{"D": strings.Repeat("x", 1<<20)}}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("%d variables, %v", len(env), err)
	}
	if r, err := s.Read("x"); err != nil || len(r.Config.Config.Env) != 2 {
		t.Errorf("%+v, %v", r.Config.Config.Env, err)
	}
	refused := errors.New("the guest does not want to")
	if env, err := s.ChangeEnv(t.Context(), "x", api.EnvChange{Set: map[string]string{"E": "5"}}, func(env map[string]string) error {
		if len(env) != 3 {
			t.Errorf("the guest gets %v", env)
		}
		return refused
	}); !errors.Is(err, refused) || env != nil {
		t.Errorf("%v, %v", env, err)
	}
	if r, err := s.Read("x"); err != nil || len(r.Config.Config.Env) != 2 {
		t.Errorf("%+v, %v", r.Config.Config.Env, err)
	}
	if env, err := change(api.EnvChange{Replace: true}); err != nil || len(env) != 0 {
		t.Errorf("%v, %v", env, err)
	}
}
