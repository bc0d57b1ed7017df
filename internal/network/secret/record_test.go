package secret

import (
	"slices"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

func records() []api.Secret {
	return []api.Secret{
		{Name: "A", Source: "env:A", Hosts: []string{"a.example.com"}, Prefix: "sk-", Query: true},
		{Name: "B", Hosts: []string{"b.example.com", "a.example.com"}},
	}
}

func TestEnroll(t *testing.T) {
	cfg := api.Config{ID: "x", Secrets: records(), Env: map[string]string{"C": "1"}}
	got, err := Enroll(cfg, api.SecretValues{"A": api.SecretValue(strings.Repeat("v", 51))})
	if err != nil {
		t.Fatal(err)
	}
	a, b := got.Secrets[0].Placeholder, got.Secrets[1].Placeholder
	if len(a) != 51 || !strings.HasPrefix(a, "sk-") || len(b) != 20 {
		t.Errorf("placeholders %s, %s", a, b)
	}
	if got.Env["A"] != a || got.Env["B"] != b || got.Env["C"] != "1" || len(cfg.Env) != 1 || cfg.Secrets[0].Placeholder != "" {
		t.Errorf("environment %v, formerly %v", got.Env, cfg.Env)
	}
	if err := got.WithDefaults().Validate(); err != nil {
		t.Error(err)
	}
	if _, err := Enroll(cfg, api.SecretValues{"X": "hunter2hunter2"}); !errdefs.Is(err, errdefs.Invalid) || !strings.Contains(err.Error(), `no secret "X"; it has A, B`) {
		t.Error(err)
	}
	if _, err := Enroll(cfg, api.SecretValues{"A": "short"}); !errdefs.Is(err, errdefs.Invalid) || strings.Contains(err.Error(), "short") {
		t.Error(err)
	}
	if got, err := Enroll(api.Config{}, nil); err != nil || got.Env != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestMatch(t *testing.T) {
	cfg, err := Enroll(api.Config{Secrets: records()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	values := api.SecretValues{"A": "value-of-a", "B": "value-of-b"}
	all, err := Match("web", cfg.Secrets, values)
	if err != nil || len(all) != 2 || all[0].Value != "value-of-a" || !all[0].Query || all[1].Query || all[1].Placeholder != cfg.Env["B"] {
		t.Fatalf("%d, %v", len(all), err)
	}
	if got := Hosts(cfg.Secrets); !slices.Equal(got, []string{"a.example.com", "b.example.com"}) {
		t.Errorf("%v", got)
	}
	_, err = Match("web", cfg.Secrets, nil)
	if !errdefs.Is(err, errdefs.Invalid) || !strings.HasSuffix(err.Error(), ": A (env:A), B") || !strings.Contains(errdefs.RemedyOf(err), "smolvm start web") {
		t.Errorf("%v; %s", err, errdefs.RemedyOf(err))
	}
	if _, err := Match("web", nil, values); err == nil || !strings.Contains(err.Error(), "it has none") {
		t.Error(err)
	}
	next, err := Rotate(all, api.SecretValues{"B": "another-of-b"})
	if err != nil || next[1].Value != "another-of-b" || next[0].Value != "value-of-a" || all[1].Value != "value-of-b" {
		t.Errorf("%v", err)
	}
	if _, err := Rotate(all, api.SecretValues{"B": "a\nb"}); !errdefs.Is(err, errdefs.Invalid) {
		t.Error(err)
	}
	if _, err := Rotate(all, api.SecretValues{"Z": "another-of-b"}); !errdefs.Is(err, errdefs.Invalid) {
		t.Error(err)
	}
}
