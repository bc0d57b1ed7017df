package network

import (
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// ask reads "METHOD name[:port]/path", where the port is 443 unless it is said, and asks about it.
func ask(t testing.TB, p *Policy, text string) RequestVerdict {
	t.Helper()
	method, rest, _ := strings.Cut(text, " ")
	host, path, _ := strings.Cut(rest, "/")
	if !strings.Contains(host, ":") {
		host += ":443"
	}
	clean, err := CleanPath("/" + path)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p.Request(flow(t, host), method, clean.Clean)
}

func TestRequest(t *testing.T) {
	tests := []struct {
		name  string
		mode  api.NetworkMode
		rules []string
		allow []string
		deny  []string
	}{
		{
			"methods and paths", api.NetAllow,
			[]string{"+api.github.com=GET,HEAD:/repos/**,/user", "+api.github.com=POST:/repos/*/*/issues"},
			[]string{
				"GET api.github.com/repos/a/b", "HEAD api.github.com/repos", "GET api.github.com/repos/", "GET API.GitHub.com./user", "POST api.github.com/repos/a/b/issues",
				"GET api.github.com:80/user", "GET api.github.com/repos/%61/b?", "GET api.github.com/repos/x%2fy",
			},
			[]string{
				"POST api.github.com/repos/a/b", "get api.github.com/user", "GET api.github.com/", "GET api.github.com/user/", "GET api.github.com/USER", "GET api.github.com/repositories",
				"DELETE api.github.com/user", " api.github.com/user", "POST api.github.com/repos/a/b/issues/1", "POST api.github.com/repos/a/b%2fc/issues",
				"POST api.github.com/repos/a/b/c/issues", "GET api.github.com:8443/user", "GET github.com/user",
			},
		},
		{
			"a slash that is encoded is read both ways", api.NetAllow,
			[]string{"+npm.example=GET:/@scope/*,/@scope%2f*", "+half.example=GET:/@scope/*", "+other.example=GET:/@scope%2F*", "+all.example=*:/**", "+one.example=*:/*"},
			[]string{"GET npm.example/@scope/name", "GET npm.example/@scope%2fname", "GET npm.example/@scope%2Fname", "GET half.example/@scope/name", "GET all.example/@scope%2fname", "GET one.example/a"},
			[]string{
				"GET npm.example/@scope/name/x", "GET npm.example/@scope%2fname%2fx", "GET half.example/@scope%2Fname", "GET other.example/@scope%2fname", "GET other.example/@scope/name",
				"GET one.example/a%2fb", "GET one.example/a/b",
			},
		},
		{
			"the first match decides", api.NetAllow,
			[]string{"+a.example=GET", "-a.example", "+*.example=POST:/x", "+b.example:80", "+c.example=opaque", "+*=*:/public/**"},
			[]string{"GET a.example/x", "POST b.example/x", "PUT b.example:80/y", "PUT c.example/any", "GET d.example/public/a", "GET other.test:80/public"},
			[]string{"POST a.example/x", "GET a.example:8443/public/x", "GET d.example/x"},
		},
		{
			"a rule without them allows all that is left", api.NetAllow,
			[]string{"+a.example:443=GET:/x", "+a.example:443"},
			[]string{"GET a.example/x", "POST a.example/y"},
			[]string{"GET a.example:80/x"},
		},
		{
			"ports that are named", api.NetAllow,
			[]string{"+a.example:8000-8100=GET"},
			[]string{"GET a.example:8000/", "GET a.example:8100/"},
			[]string{"GET a.example:443/", "GET a.example:80/", "POST a.example:8000/"},
		},
		{
			"open", api.NetOpen,
			[]string{"+a.example", "-*:8443"},
			[]string{"GET a.example/", "POST b.example/", "GET b.example:80/"},
			[]string{"GET b.example:8443/", "GET metadata.google.internal:80/"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := compile(t, tt.mode, tt.rules...)
			for _, text := range tt.allow {
				text = strings.TrimSuffix(text, "?")
				if v := ask(t, p, text); !v.Allow || v.HTTP != (tt.mode == api.NetAllow || strings.Contains(text, "a.example")) || v.Rule == "" || v.Reason != "" {
					t.Errorf("%s: %+v, want it allowed", text, v)
				}
			}
			for _, text := range tt.deny {
				if v := ask(t, p, text); v.Allow || v.HTTP || v.Rule == "" || v.Reason == "" {
					t.Errorf("%s: %+v, want it denied with a reason", text, v)
				}
			}
		})
	}
}

// TestLook: which flows are looked into, and which datagrams must not be a way past that.
func TestLook(t *testing.T) {
	p, err := Compile(api.NetworkPolicy{Mode: api.NetAllow, Rules: rules(t,
		"+closed.example=opaque", "+ask.example=GET", "+ports.example:8443,9000=*:/x", "+*.example", "+1.2.3.0/24", "+quic.example:443/udp", "+ask.example:1-1000/udp", "+host.smolvm.internal:443",
		"-bad.test:443", "+*.test:22,443", "+closed.example/udp",
	)}, Options{SecretHosts: []string{"Secret.example", "*.vault.example"}})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"a.example:443": "http", "a.example:80": "http", "A.Example.:443": "http", "a.example:22": "splice", "a.example@1.2.3.4:443": "http", "a.example@93.184.216.34:443": "http",
		"@1.2.3.4:443": "splice", "closed.example:443": "opaque", "closed.example:80": "opaque", "ask.example:443": "http", "ask.example:80": "http", "ask.example:22": "splice",
		"ports.example:8443": "http", "ports.example:9000": "http", "ports.example:22": "splice", "host.smolvm.internal:443": "splice", "x.test:443": "http", "x.test:22": "splice",
		"bad.test:443": "deny", "secret.example:443": "http", "x.vault.example:443": "http", "vault.example:443": "http", "secret.example:22": "splice",
		"quic.example:443/udp": "splice", "a.example:443/udp": "deny", "ask.example:443/udp": "deny", "ask.example:80/udp": "deny", "ask.example:53/udp": "splice", "closed.example:443/udp": "splice",
	} {
		v := p.Flow(flow(t, text))
		got := map[Verdict]string{{}: "deny", {Allow: true}: "splice", {Allow: true, HTTP: true}: "http", {Allow: true, Opaque: true}: "opaque"}[Verdict{Allow: v.Allow, HTTP: v.HTTP, Opaque: v.Opaque}]
		if got != want {
			t.Errorf("%s: %+v, want %s", text, v, want)
		}
	}
}

// TestLookOpen: in mode open what rules name is looked into, and where secrets go; those names need addresses of their own.
func TestLookOpen(t *testing.T) {
	p, err := Compile(api.NetworkPolicy{Mode: api.NetOpen, Rules: rules(t, "-*:25", "+named.example", "+ssh.example:22", "+quic.example", "+quic.example/udp")},
		Options{SecretHosts: []string{"api.example", "*.vault.example"}})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"named.example:443": true, "named.example:80": true, "named.example:22": false, "other.example:443": false, "ssh.example:443": false, "api.example:443": true,
		"api.example:80": false, "x.vault.example:443": true, "vault.example:443": false,
	} {
		if v := p.Flow(flow(t, text)); !v.Allow || v.HTTP != want {
			t.Errorf("%s: %+v, want HTTP %v", text, v, want)
		}
	}
	for text, want := range map[string]bool{
		"named.example:443/udp": false, "named.example:53/udp": true, "other.example:443/udp": true, "api.example:443/udp": false, "api.example:80/udp": true, "quic.example:443/udp": true,
	} {
		if v := p.Flow(flow(t, text)); v.Allow != want || v.HTTP {
			t.Errorf("%s: %+v, want it allowed: %v", text, v, want)
		}
	}
	for name, want := range map[string]bool{
		"named.example": true, "Named.Example.": true, "other.example": false, "ssh.example": false, "api.example": true, "x.vault.example": true, "vault.example": false,
		HostName: true, "1.2.3.4": false, "metadata.goog": false,
	} {
		if got := p.Synthetic(name); got != want {
			t.Errorf("%s: synthetic is %v", name, got)
		}
	}
	if !compile(t, api.NetAllow).Synthetic("any.example") {
		t.Error("in mode allow a name has an address of others")
	}
}

func TestRequestTells(t *testing.T) {
	p := compile(t, api.NetAllow, "+a.example=GET:/x", "+a.example:8443=GET:/x", "+b.example=GET", "-*.example")
	for text, says := range map[string]string{
		"POST a.example/y/z":              "a.example=POST:/y/z",
		"POST a.example:8443/y":           "a.example:8443=POST:/y",
		"POST a.example/@s%2fn":           "a.example=POST:/@s%2Fn,/@s/n",
		"POST a.example/$(x)":             "a.example=POST",
		"GET a.example/*":                 "a.example=GET",
		"WHAT'S a.example/y":              "a.example=*:/y",
		"PUT a.example/" + long("y", 129): "a.example=PUT",
	} {
		p := compile(t, api.NetAllow, "+a.example=GET:/x", "+a.example:8443=GET:/x")
		v := ask(t, p, text)
		if want := "no rule allows it; --allow " + says + " would"; v.Reason != want || v.Rule != Default {
			t.Errorf("%s: %+v, want %q", text, v, want)
		}
		// And it does.
		r, err := api.ParseRule(api.RuleAllow, says)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if v := ask(t, compile(t, api.NetAllow, "+"+strings.TrimPrefix(r.String(), "allow ")), text); !v.Allow {
			t.Errorf("%s: %s does not allow it: %+v", text, says, v)
		}
	}
	if v := ask(t, p, "POST b.example/"); v.Rule != "deny *.example" || v.Reason != "a rule denies it" {
		t.Errorf("%+v", v)
	}
	// What cannot be read is for rules that say nothing of paths.
	if v := p.Request(Flow{Name: "a.example", Port: 443}, "GET", ""); v.Allow {
		t.Errorf("a path that is none: %+v", v)
	}
	if v := p.Request(Flow{Name: "b.example", Port: 443}, "GET", ""); !v.Allow {
		t.Errorf("a path that is none, and not asked for: %+v", v)
	}
}

func long(s string, n int) string { return strings.Repeat(s, n) }

func TestRequestBounds(t *testing.T) {
	p, err := Compile(api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{
		{Action: api.RuleAllow, Host: "a.example", Paths: []string{"/s/*"}, MaxResponseKB: 5, ResponseKBps: 7},
		{Action: api.RuleAllow, Host: "a.example", Paths: []string{"/s%2f*"}, MaxResponseKB: 9},
		{Action: api.RuleAllow, Host: "b.example", MaxResponseKB: 2},
	}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][2]int64{"GET a.example/s/x": {5000, 7000}, "GET a.example/s%2fx": {5000, 7000}, "GET b.example:80/": {2000, 0}} {
		if v := ask(t, p, text); !v.Allow || v.MaxResponse != want[0] || v.Rate != want[1] {
			t.Errorf("%s: %+v, want %v", text, v, want)
		}
	}
	if v := p.Flow(Flow{Name: "b.example", Port: 22}); v.Allow {
		t.Errorf("a rule about responses opens a port where there are none: %+v", v)
	}
}

func TestCompileRefusesRequests(t *testing.T) {
	tests := []struct {
		name    string
		mode    api.NetworkMode
		rules   []string
		secrets []string
		says    string // "" when it is fine
	}{
		{"methods in mode open", api.NetOpen, []string{"+a.example=GET"}, nil, "cannot be enforced"},
		{"opaque in mode open", api.NetOpen, []string{"+a.example=opaque"}, nil, "means nothing"},
		{"methods beside all addresses", api.NetAllow, []string{"+a.example=GET", "+0.0.0.0/1"}, nil, "beside allow 0.0.0.0/1"},
		{"methods beside some", api.NetAllow, []string{"+a.example=GET", "+10.0.0.0/8"}, nil, ""},
		{"opaque beside all addresses", api.NetAllow, []string{"+a.example=opaque", "+0.0.0.0/0"}, nil, ""},
		{"methods of the host", api.NetAllow, []string{"+host.smolvm.internal:80=GET"}, nil, "not looked into"},
		{"an opaque host", api.NetAllow, []string{"+host.smolvm.internal:80=opaque"}, nil, "not looked into"},
		{"a secret that no rule lets out", api.NetAllow, []string{"+a.example"}, []string{"b.example"}, "--allow b.example:443"},
		{"on another port", api.NetAllow, []string{"+b.example:80"}, []string{"b.example"}, "--allow b.example:443"},
		{"denied", api.NetAllow, []string{"-b.example", "+*.example"}, []string{"b.example"}, "--allow b.example:443"},
		{"over UDP", api.NetAllow, []string{"+b.example/udp"}, []string{"b.example"}, "--allow b.example:443"},
		{"unseen", api.NetAllow, []string{"+b.example=opaque"}, []string{"b.example"}, "keeps closed"},
		{"one by a star", api.NetAllow, []string{"+*=GET"}, []string{"b.example", "*.c.example"}, ""},
		{"below a zone", api.NetAllow, []string{"+x.b.example"}, []string{"*.b.example"}, ""},
		{"far below a zone", api.NetAllow, []string{"+*.x.b.example:443"}, []string{"*.b.example"}, ""},
		{"not below a zone", api.NetAllow, []string{"+b.example"}, []string{"*.b.example"}, "--allow *.b.example:443"},
		{"an unseen zone", api.NetAllow, []string{"+*.b.example=opaque"}, []string{"*.b.example"}, "keeps closed"},
		{"in a zone with an unseen name", api.NetAllow, []string{"+x.b.example=opaque", "+*.b.example"}, []string{"*.b.example"}, ""},
		{"a secret in mode open", api.NetOpen, nil, []string{"b.example"}, ""},
		{"a secret and no network", api.NetNone, nil, []string{"b.example"}, ""},
		{"a secret for an address", api.NetOpen, nil, []string{"1.2.3.4"}, "no host name"},
		{"a secret for everybody", api.NetOpen, nil, []string{"*"}, "no host name"},
		{"a secret for the host", api.NetOpen, nil, []string{HostName}, "no host name"},
		{"a secret for localhost", api.NetOpen, nil, []string{"localhost"}, "no host name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile(api.NetworkPolicy{Mode: tt.mode, Rules: rules(t, tt.rules...)}, Options{SecretHosts: tt.secrets})
			switch {
			case tt.says == "" && err != nil:
				t.Error(err)
			case tt.says != "" && (!errdefs.Is(err, errdefs.Invalid) || !strings.Contains(err.Error()+errdefs.RemedyOf(err), tt.says)):
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

// FuzzGlob: what a rule takes for a glob is one, and only a double star reaches over a slash.
func FuzzGlob(f *testing.F) {
	for _, s := range []string{"/a/*", "/{a,b*}/[a-z]?", `/\*/**/x`, "/%2f[.-9]", "/{*,x}*", "/[!a]", "/a**"} {
		f.Add(s, "/a/b")
	}
	f.Fuzz(func(t *testing.T, glob, path string) {
		all, err := api.ParseGlob(glob)
		if err != nil {
			return
		}
		for _, g := range all {
			if !doublestar.ValidatePattern(g) {
				t.Fatalf("%q, of %q, is no glob", g, glob)
			}
			if !strings.Contains(g, "**") && doublestar.MatchUnvalidated(g, path) && strings.Count(g, "/") != strings.Count(path, "/") {
				t.Errorf("%q matches %q", g, path)
			}
		}
	})
}
