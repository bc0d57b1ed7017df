package supervisor

import (
	"context"
	"errors"
	"testing"

	"github.com/smolvm/smolvm/api"
)

// setter is a gateway that notes what it got.
type setter struct {
	got  []api.NetworkMode
	fail map[api.NetworkMode]bool
}

func (s *setter) SetPolicy(_ context.Context, p api.NetworkPolicy) error {
	if s.fail[p.Mode] {
		return errors.New("no")
	}
	s.got = append(s.got, p.Mode)
	return nil
}

func TestPolicy(t *testing.T) {
	var saved api.NetworkMode
	save := func(p api.NetworkPolicy) error { saved = p.Mode; return nil }
	p := &policy{now: api.NetworkPolicy{Mode: api.NetOpen}}
	if err := p.set(t.Context(), api.NetworkPolicy{Mode: api.NetAllow}, save); err != nil || saved != api.NetAllow {
		t.Fatalf("before there is a gateway: %v, saved %s", err, saved)
	}
	g := &setter{fail: map[api.NetworkMode]bool{api.NetNone: true}}
	if err := p.attach(t.Context(), g); err != nil || len(g.got) != 1 || g.got[0] != api.NetAllow {
		t.Fatalf("attach: %v, it got %v", err, g.got)
	}
	if err := p.set(t.Context(), api.NetworkPolicy{Mode: api.NetNone}, save); err == nil || saved != api.NetAllow || p.now.Mode != api.NetAllow {
		t.Errorf("a gateway that refuses: %v, saved %s, now %s", err, saved, p.now.Mode)
	}
	if g.got[len(g.got)-1] != api.NetAllow {
		t.Errorf("it got %v", g.got)
	}
	g.fail[api.NetAllow] = true // it does not even take back what it had
	if err := p.set(t.Context(), api.NetworkPolicy{Mode: api.NetNone}, save); err == nil || saved != api.NetAllow || p.now.Mode != api.NetAllow {
		t.Errorf("a gateway that refuses everything: %v, saved %s, now %s", err, saved, p.now.Mode)
	}
	full := errors.New("full")
	if err := p.set(t.Context(), api.NetworkPolicy{Mode: api.NetOpen}, func(api.NetworkPolicy) error { return full }); !errors.Is(err, full) || len(g.got) != 2 {
		t.Errorf("what cannot be kept is not put in force: %v, %v", err, g.got)
	}
	broken := &setter{fail: map[api.NetworkMode]bool{api.NetAllow: true}}
	if err := p.attach(t.Context(), broken); err == nil || p.gateway != policySetter(g) {
		t.Errorf("a gateway without a policy took over: %v", err)
	}
}
