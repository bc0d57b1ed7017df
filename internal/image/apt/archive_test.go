package apt

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
)

func TestNewArchive(t *testing.T) {
	for _, c := range []struct {
		name, in, main, security string
		bad                      bool
	}{
		{"default", "", defaultMain, defaultSecurity, false},
		{"one", "https://mirror.example/debian/", "https://mirror.example/debian", "https://mirror.example/debian-security", false},
		{"two", "http://a.example/d http://b.example:8080/s", "http://a.example/d", "http://b.example:8080/s", false},
		{"file", "file:///srv/debian", "file:///srv/debian", "file:///srv/debian-security", false},
		{"three", "http://a http://b http://c", "", "", true},
		{"no scheme", "mirror.example/debian", "", "", true},
		{"other scheme", "copy:///x", "", "", true},
		{"no host", "http:///debian", "", "", true},
		{"quote", `http://a.example/"`, "", "", true},
		{"bracket", `http://a.example/[trusted=yes]`, "", "", true},
		{"control character", "http://a.example/\x01", "", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := NewArchive(c.in)
			if c.bad {
				if !errdefs.Is(err, errdefs.Invalid) {
					t.Errorf("got %v, %v", a, err)
				}
				return
			}
			if err != nil || a.Main != c.main || a.Security != c.security {
				t.Errorf("got %+v, %v", a, err)
			}
		})
	}
}

func TestArchiveForGuest(t *testing.T) {
	for in, same := range map[string]bool{
		"http://mirror.example/debian":                         true,
		"http://127.0.0.1:3142/debian":                         false,
		"http://[::1]/debian":                                  false,
		"http://localhost/debian":                              false,
		"file:///srv/debian":                                   false,
		"http://mirror.example/debian http://localhost/debian": false,
	} {
		a, err := NewArchive(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.ForGuest() == a; got != same {
			t.Errorf("%s: kept is %v", in, got)
		}
	}
}

func TestArchiveTexts(t *testing.T) {
	a, err := NewArchive("")
	if err != nil {
		t.Fatal(err)
	}
	sources := a.Sources("/k.gpg")
	var stanzas []Stanza
	if err := Stanzas(strings.NewReader(sources), func(s Stanza) error { stanzas = append(stanzas, s); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(stanzas) != 2 || stanzas[0]["Suites"] != "trixie trixie-updates" || stanzas[1]["Suites"] != "trixie-security" ||
		stanzas[0]["Signed-By"] != "/k.gpg" || stanzas[1]["Signed-By"] != "/k.gpg" {
		t.Errorf("sources: %s", sources)
	}
	for _, l := range a.Lines("/k.gpg") {
		if !strings.HasPrefix(l, "deb [signed-by=/k.gpg] http://deb.debian.org/debian") {
			t.Errorf("line %q", l)
		}
	}
}

func TestKeyring(t *testing.T) {
	// Three files, each beginning with a public key packet in either packet format.
	b := Keyring()
	if len(b) < 18000 || b[0]&0x80 == 0 {
		t.Errorf("%d bytes", len(b))
	}
}

func TestParseProxies(t *testing.T) {
	dump := `Acquire "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::Proxy "";
Acquire::http::Proxy::deb.debian.org "DIRECT";
Acquire::http::Proxy-Auto-Detect "/usr/bin/auto-apt-proxy";
Acquire::http::Pipeline-Depth "5";
Acquire::Check-Valid-Until "false";
APT::Update::Pre-Invoke:: "touch /tmp/x";
Acquire::http::Proxy "a\"; evil";
`
	want := []string{
		`Acquire::http::Proxy "http://proxy.example:3128"`,
		`Acquire::http::Proxy::deb.debian.org "DIRECT"`,
		`Acquire::http::Proxy-Auto-Detect "/usr/bin/auto-apt-proxy"`,
	}
	if got := parseProxies(dump); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func FuzzParseProxies(f *testing.F) {
	f.Add(`Acquire::http::Proxy "http://p:1";`)
	f.Fuzz(func(t *testing.T, dump string) {
		for _, p := range parseProxies(dump) {
			if strings.Count(p, `"`) != 2 || strings.ContainsAny(p, "\n;{}") && !strings.HasSuffix(p, `"`) {
				t.Errorf("%q", p)
			}
		}
	})
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		name, output string
		class        errdefs.Class
	}{
		{"no key", "W: GPG error: http://x trixie InRelease: NO_PUBKEY 6ED0E7B82643E131\nE: The repository is not signed.\n", errdefs.Image},
		{"bad hash", "E: Failed to fetch http://x/a.deb  Hash Sum mismatch\n", errdefs.Image},
		{"no name server", "E: Failed to fetch http://x  Temporary failure resolving 'x'\n", errdefs.Network},
		{"refused", "Err:1 http://127.0.0.1:1 trixie InRelease\n  Could not connect to 127.0.0.1:1\n", errdefs.Network},
		{"not there", "E: The repository 'http://x trixie Release' does not have a Release file.\n", errdefs.Network},
		{"full", "dpkg: error: No space left on device\n", errdefs.Exhausted},
		{"unknown package", "E: Unable to locate package nonsense\n", errdefs.Image},
		{"nothing", "", errdefs.Image},
	} {
		t.Run(c.name, func(t *testing.T) {
			cause := errors.New("exit status 100")
			err := Classify("apt-get update", cause, c.output)
			if !errdefs.Is(err, c.class) || !errors.Is(err, cause) {
				t.Errorf("got %s: %v", errdefs.ClassOf(err), err)
			}
		})
	}
}

func TestTail(t *testing.T) {
	tail := &Tail{Max: 4}
	for _, s := range []string{"ab", "cdef", ""} {
		if n, err := tail.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	if tail.String() != "cdef" {
		t.Errorf("got %q", tail.String())
	}
}
