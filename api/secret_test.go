package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
)

func TestParseSecret(t *testing.T) {
	tests := []struct {
		text string
		want Secret
	}{
		{"TOKEN=env:GH@api.github.com", Secret{Name: "TOKEN", Source: "env:GH", Hosts: []string{"api.github.com"}}},
		{"T=env:T@API.github.com,*.example.com", Secret{Name: "T", Source: "env:T", Hosts: []string{"api.github.com", "*.example.com"}}},
		{"T=file:/home/me@work/key@a.b", Secret{Name: "T", Source: "file:/home/me@work/key", Hosts: []string{"a.b"}}},
		{"T=cmd:pass show me@x; true, yes@a.b;prefix=sk-;query", Secret{Name: "T", Source: "cmd:pass show me@x; true, yes", Hosts: []string{"a.b"}, Prefix: "sk-", Query: true}},
		{"T=cmd:echo a=b@a.b", Secret{Name: "T", Source: "cmd:echo a=b", Hosts: []string{"a.b"}}},
	}
	for _, tt := range tests {
		got, err := ParseSecret(tt.text)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v", tt.text, got, err)
		}
		if again, err := ParseSecret(got.String()); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%s: back as %+v, %v", got, again, err)
		}
	}
}

func TestParseSecretRefuses(t *testing.T) {
	const value = "hunter2hunter2"
	for text, want := range map[string]string{
		"":                              "NAME=SOURCE@HOST",
		"TOKEN":                         "NAME=SOURCE@HOST",
		"=env:A@a.b":                    "NAME=SOURCE@HOST",
		"A-B=env:A@a.b":                 "NAME=SOURCE@HOST",
		"T=env:A":                       "no host",
		"T=@a.b":                        "no source",
		"T=" + value + "@a.b":           "none of env:VARIABLE",
		"T=env:@a.b":                    "names nothing",
		"T=env:A-B@a.b":                 "no variable",
		"T=file: @a.b":                  "names nothing",
		"T=env:A@":                      "host",
		"T=env:A@a.b,a.b":               "twice",
		"T=env:A@localhost":             "neither a name",
		"T=env:A@*":                     "neither a name",
		"T=env:A@*.com":                 "top-level",
		"T=env:A@a.b:443":               "neither a name",
		"T=env:A@127.1":                 "address",
		"T=env:A@host.smolvm.internal":  "this host",
		"T=env:A@*.smolvm.internal":     "this host",
		"T=env:A@a.b;prefix":            "neither prefix=TEXT",
		"T=env:A@a.b;prefix=a;prefix=b": "neither prefix=TEXT",
		"T=env:A@a.b;prefix=a b":        "prefix",
		"T=env:A@a.b;query=1":           "neither prefix=TEXT",
		"T=env:A@a.b;x":                 "neither prefix=TEXT",
		"T=cmd:" + strings.Repeat("x", 5000) + "@a.b": "more than 4096",
	} {
		_, err := ParseSecret(text)
		if err == nil || !strings.Contains(err.Error(), want) || !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		} else if strings.Contains(err.Error()+errdefs.RemedyOf(err), value) {
			t.Errorf("%q: the error tells what may be a value: %v", text, err)
		}
	}
}

func TestSecretValue(t *testing.T) {
	v := SecretValue("hunter2hunter2")
	for _, text := range []string{fmt.Sprint(v), fmt.Sprintf("%v %s %q %x %#v", v, v, v, v, v), fmt.Sprintf("%+v", SecretValues{"A": v}), fmt.Sprintf("%#v", struct{ V SecretValue }{v})} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, fmt.Sprintf("%x", string(v))) {
			t.Errorf("it is printed: %s", text)
		}
	}
	if b, err := json.Marshal(SecretValues{"A": v}); err != nil || string(b) != `{"A":"hunter2hunter2"}` {
		t.Errorf("a request does not have it: %s, %v", b, err)
	}
	if err := v.Validate("A"); err != nil {
		t.Error(err)
	}
}

func TestValidateSecrets(t *testing.T) {
	a := Secret{Name: "A", Hosts: []string{"a.b"}, Placeholder: strings.Repeat("p", 20)}
	if err := ValidateSecrets([]Secret{a}, map[string]string{"A": a.Placeholder, "B": "1"}); err != nil {
		t.Error(err)
	}
	for want, err := range map[string]error{
		"two secrets A":   ValidateSecrets([]Secret{a, a}, nil),
		"both a variable": ValidateSecrets([]Secret{a}, map[string]string{"A": "other"}),
		"more than 64":    ValidateSecrets(make([]Secret, 65), nil),
		"its name":        ValidateSecrets([]Secret{{}}, nil),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
