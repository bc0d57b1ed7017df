package keyring

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/network/secret"
)

// gateway is a Setter that remembers.
type gateway struct {
	has []secret.Secret
	err error
}

func (g *gateway) SetSecrets(_ context.Context, list []secret.Secret) error {
	if g.err == nil {
		g.has = list
	}
	return g.err
}

func TestRing(t *testing.T) {
	cfg, err := secret.Enroll(api.Config{Secrets: []api.Secret{{Name: "A", Hosts: []string{"a.example.com"}}, {Name: "B", Hosts: []string{"b.example.com"}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New("vm", cfg.Secrets, api.SecretValues{"A": "value-of-a"}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("without B's value: %v", err)
	}
	r, err := New("vm", cfg.Secrets, api.SecretValues{"A": "value-of-a", "B": "value-of-b"})
	if err != nil || !slices.Equal(r.Hosts(), []string{"a.example.com", "b.example.com"}) {
		t.Fatal(r.Hosts(), err)
	}
	g, saved, undone := &gateway{}, 0, 0
	save := func() (func() error, error) {
		saved++
		return func() error { undone++; return nil }, nil
	}
	change := api.SecretChange{Values: api.SecretValues{"B": "next-of-b"}, Sources: map[string]string{"B": "env:B2"}}
	if err := r.Change(t.Context(), change, g, save); err != nil || g.has[1].Value != "next-of-b" || r.All()[1].Value != "next-of-b" || saved != 1 {
		t.Errorf("%v, saved %d", err, saved)
	}
	g.err = errors.New("no")
	change.Values["B"] = "third-of-b"
	if err := r.Change(t.Context(), change, g, save); !errors.Is(err, g.err) || r.All()[1].Value != "next-of-b" || undone != 1 {
		t.Errorf("%v, undone %d", err, undone)
	}
	if err := r.Change(t.Context(), api.SecretChange{Sources: map[string]string{"B": "env:B3"}}, g, save); err != nil || saved != 3 {
		t.Errorf("sources alone: %v, saved %d", err, saved)
	}
	for name, bad := range map[string]api.SecretChange{"nothing": {}, "unknown": {Values: api.SecretValues{"C": "value-of-c"}}, "a bad value": {Values: api.SecretValues{"A": "a\nb"}}} {
		if err := r.Change(t.Context(), bad, g, save); !errdefs.Is(err, errdefs.Invalid) || saved != 3 {
			t.Errorf("%s: %v, saved %d", name, err, saved)
		}
	}
}
