package api

import (
	"strings"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
)

func TestParsePort(t *testing.T) {
	good := map[string]Port{
		"80":                          {"127.0.0.1", 0, 80, true},
		"0:80":                        {"127.0.0.1", 0, 80, true},
		"8080:80":                     {"127.0.0.1", 8080, 80, false},
		"8080:80/tcp":                 {"127.0.0.1", 8080, 80, false},
		"0.0.0.0:8080:80":             {"0.0.0.0", 8080, 80, false},
		"192.0.2.1:65535:65535":       {"192.0.2.1", 65535, 65535, false},
		"[::1]:8080:80":               {"::1", 8080, 80, false},
		"[::]:0:80":                   {"::", 0, 80, true},
		"[0:0:0:0:0:0:0:1]:8080:80":   {"::1", 8080, 80, false},
		"[::ffff:127.0.0.1]:8080:080": {"127.0.0.1", 8080, 80, false},
	}
	for text, want := range good {
		got, err := ParsePort(text)
		if err != nil || got != want {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
		again, err := ParsePort(got.String())
		again.Any = got.Any
		if err != nil || again != got {
			t.Errorf("%q, printed as %q, is %+v, %v", text, got, again, err)
		}
	}
	for _, text := range []string{
		"", ":", "::", "x", "0", "80:0", "8080:", "8080:80:90", "65536", "65536:80", "8080:65536", "-1:80", "+1:80", " 80", "80/udp", "80/", "80/tcp/tcp",
		"localhost:8080:80", "::1:8080:80", "[::1]8080:80", "[::1]:80", "[::1]", "[]:8080:80", "[127.0.0.1]:8080:80", "[::1]:8080:80:1", "[fe80::1%eth0]:1:2",
		"224.0.0.1:8080:80", "127.1:8080:80", "*:8080:80", "1.2.3.4:8080", "]:1:2", "8080-8090:80",
	} {
		if got, err := ParsePort(text); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("%q is %+v, %v", text, got, err)
		} else if errdefs.RemedyOf(err) == "" {
			t.Errorf("%q: no remedy in %v", text, err)
		}
	}
}

func FuzzParsePort(f *testing.F) {
	for _, text := range []string{"80", "8080:80", "[::1]:8080:80/tcp", "0.0.0.0:0:1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePort(text)
		if err != nil {
			return
		}
		if again, err := ParsePort(p.String()); err != nil || again.Address != p.Address || again.HostPort != p.HostPort || again.GuestPort != p.GuestPort {
			t.Errorf("%q is %+v, and again %+v, %v", text, p, again, err)
		}
	})
}

func TestValidatePorts(t *testing.T) {
	parse := func(texts ...string) []Port {
		var ports []Port
		for _, text := range texts {
			p, err := ParsePort(text)
			if err != nil {
				t.Fatal(err)
			}
			ports = append(ports, p)
		}
		return ports
	}
	for _, texts := range []string{"80 80", "8080:80 8081:80", "127.0.0.1:80:80 127.0.0.2:80:80", "0.0.0.0:80:80 [::]:80:80"} {
		if err := ValidatePorts(parse(strings.Fields(texts)...)); err != nil {
			t.Errorf("%s: %v", texts, err)
		}
	}
	for _, texts := range []string{"8080:80 8080:81", "0.0.0.0:8080:80 8080:80", "[::1]:80:80 [::]:80:80"} {
		if err := ValidatePorts(parse(strings.Fields(texts)...)); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("%s: %v", texts, err)
		}
	}
	if err := ValidatePorts([]Port{{GuestPort: 80}, {Address: "x", GuestPort: 80}}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("%v", err)
	}
	if err := ValidatePorts(make([]Port, MaxPorts+1)); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("%v", err)
	}
}

func TestSelectPort(t *testing.T) {
	ports := []Port{
		{Address: "127.0.0.1", HostPort: 8080, GuestPort: 80},
		{Address: "::1", HostPort: 8080, GuestPort: 80},
		{Address: "0.0.0.0", HostPort: 9090, GuestPort: 90},
		{Address: "0.0.0.0", HostPort: 1000, GuestPort: 10},
		{Address: "::", HostPort: 1000, GuestPort: 10},
	}
	tests := []struct {
		text  string
		want  int
		class errdefs.Class
	}{
		{"8080:80", 0, ""},
		{"[::1]:8080:80", 1, ""},
		{"9090:90", 2, ""},
		{"90", 2, ""},
		{"[::]:1000:10", 4, ""},
		{"80", 0, errdefs.Invalid},
		{"1000:10", 0, errdefs.Invalid},
		{"7", 0, errdefs.NotFound},
		{"8081:80", 0, errdefs.NotFound},
		{"127.0.0.2:8080:80", 0, errdefs.NotFound},
	}
	for _, tt := range tests {
		p, err := ParsePort(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := SelectPort(ports, p)
		if tt.class == "" && (err != nil || got != tt.want) || tt.class != "" && !errdefs.Is(err, tt.class) {
			t.Errorf("%s: %d, %v", tt.text, got, err)
		}
	}
}
