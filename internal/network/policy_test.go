package network

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// rules reads rules as a command line would have them: "+" allows, "-" denies.
func rules(t testing.TB, texts ...string) []api.NetworkRule {
	t.Helper()
	var out []api.NetworkRule
	for _, text := range texts {
		action := api.RuleAllow
		if text[0] == '-' {
			action = api.RuleDeny
		}
		r, err := api.ParseRule(action, text[1:])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func compile(t testing.TB, mode api.NetworkMode, texts ...string) *Policy {
	t.Helper()
	p, err := Compile(api.NetworkPolicy{Mode: mode, Rules: rules(t, texts...)}, Options{
		HostAddrs: []netip.Addr{netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("2001:db8::9")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// flow reads "[name][@addr]:port[/udp]".
func flow(t testing.TB, text string) Flow {
	t.Helper()
	var f Flow
	text, udp := strings.CutSuffix(text, "/udp")
	if udp {
		f.Proto = UDP
	}
	i := strings.LastIndex(text, ":")
	if _, err := fmt.Sscan(text[i+1:], &f.Port); err != nil {
		t.Fatal(err)
	}
	var addr string
	f.Name, addr, _ = strings.Cut(text[:i], "@")
	if addr != "" {
		f.Addr = netip.MustParseAddr(addr)
	}
	return f
}

func TestFlow(t *testing.T) {
	tests := []struct {
		name  string
		mode  api.NetworkMode
		rules []string
		allow []string
		deny  []string
	}{
		{
			"open is the public internet, TCP and UDP", api.NetOpen, nil,
			[]string{
				"@1.1.1.1:443", "@1.1.1.1:53/udp", "example.com:443", "example.com@93.184.216.34:443", "example.com@2606:2800::1:443/udp",
				"@198.51.100.1:80", "@203.0.113.1:80", "@192.0.2.1:80", "@9.255.255.255:1", "@11.0.0.0:1", "@100.63.255.255:1", "@100.128.0.0:1",
				"@172.15.255.255:1", "@172.32.0.0:1", "@192.0.1.0:1", "@198.17.255.255:1", "@198.20.0.0:1", "@223.255.255.255:1", "@168.63.129.15:1",
				"@168.63.129.17:1", "@2001:1::1:1", "@2003::1:1", "@64:ff9a::1:1", "@64:ff9b:2::1:1", "@::2:1",
			},
			[]string{
				"@0.0.0.0:1", "@0.255.255.255:1", "@10.0.0.0:1", "@10.255.255.255:1", "@100.64.0.0:1", "@100.127.255.255:1", "@127.0.0.1:1",
				"@127.255.255.255:1", "@169.254.169.254:80", "@172.16.0.0:1", "@172.31.255.255:1", "@192.0.0.0:1", "@192.0.0.255:1",
				"@192.168.0.0:1", "@192.168.255.255:1", "@198.18.0.0:1", "@198.19.255.255:1", "@224.0.0.0:1", "@239.1.1.1:1", "@255.255.255.255:1",
				"@168.63.129.16:80", "@::1:80", "@::ffff:10.0.0.1:80", "@::ffff:127.0.0.1:80", "@64:ff9b::a00:1:80", "@64:ff9b:1::1:80",
				"@2002:a00:1::1:80", "@2001::1:80", "@2001:0:ffff::1:80", "@fc00::1:80", "@fdff::1:80", "@fe80::1:80", "@ff02::1:80",
				"@fe80::1%eth0:80", "@2606::1%eth0:80",
				"@203.0.113.9:22", "@::ffff:203.0.113.9:22", "@2001:db8::9:22",
				"example.com@10.0.0.1:443", "example.com@203.0.113.9:443", "example.com@::ffff:169.254.169.254:80", "example.com@127.0.0.1:80",
				"metadata.google.internal:80", "Metadata.Google.Internal.@1.2.3.4:80", "localhost:80", "a.localhost:80", "instance-data:80",
				"host.smolvm.internal:80", "other.smolvm.internal:80", "smolvm.internal:80",
				"127.1:80", "0x7f.1:80", "2130706433:80", "a..b:80", "-bad-host-name-\x00:80", "example.com:0", "@1.1.1.1:0",
			},
		},
		{
			"none is nothing", api.NetNone, nil, nil,
			[]string{"@1.1.1.1:443", "example.com:443", "host.smolvm.internal:80"},
		},
		{
			"allow without rules is nothing", api.NetAllow, nil, nil,
			[]string{"@1.1.1.1:443", "example.com:443", "example.com@1.1.1.1:443/udp", "host.smolvm.internal:80"},
		},
		{
			"names", api.NetAllow,
			[]string{"+pypi.org:443", "+*.pythonhosted.org", "+Bücher.Example:80,8000-8100", "+dns.example:53/udp"},
			[]string{
				"pypi.org:443", "PyPI.org.:443", "pypi.org@151.101.0.223:443", "pypi.org@2a04:4e42::223:443", "files.pythonhosted.org:443",
				"a.b.pythonhosted.org:22", "bücher.example:80", "xn--bcher-kva.example:8000", "XN--BCHER-KVA.example:8100", "dns.example@1.1.1.1:53/udp",
			},
			[]string{
				"pypi.org:80", "pypi.org:443/udp", "www.pypi.org:443", "xpypi.org:443", "pypi.org.evil.com:443", "pythonhosted.org:443",
				"xpythonhosted.org:443", "bücher.example:81", "bücher.example:7999", "bücher.example:8101", "@151.101.0.223:443", "dns.example:53",
				"org:443", "evil.com@1.1.1.1:443",
			},
		},
		{
			"a name opens no closed address", api.NetAllow,
			[]string{"+rebind.example:80", "+*.corp.example"},
			[]string{"rebind.example:80", "rebind.example@1.2.3.4:80"},
			[]string{
				"rebind.example@127.0.0.1:80", "rebind.example@10.0.0.1:80", "rebind.example@169.254.169.254:80", "rebind.example@::1:80",
				"rebind.example@::ffff:10.0.0.1:80", "rebind.example@64:ff9b::a9fe:a9fe:80", "db.corp.example@10.0.0.1:80", "rebind.example@192.168.1.5:80",
				"rebind.example@fe80::1%1:80",
			},
		},
		{
			"unless a rule for the address opens it", api.NetAllow,
			[]string{"+db.corp.example:5432", "+10.1.0.0/16:5432", "+*.lan.example:443", "+fd00::/8"},
			[]string{"db.corp.example@10.1.2.3:5432", "@10.1.2.3:5432", "x.lan.example@fd00::1:443"},
			[]string{"db.corp.example@10.2.0.1:5432", "@10.1.2.3:80", "db.corp.example@10.1.2.3:80", "x.lan.example@10.1.2.3:443", "@10.1.2.3:5432/udp"},
		},
		{
			"a rule opens what is private in mode open", api.NetOpen,
			[]string{"+10.0.0.5:5432", "+169.254.169.254", "+192.168.0.0/16:80"},
			[]string{
				"@10.0.0.5:5432", "db.example@10.0.0.5:5432", "@169.254.169.254:80", "@192.168.7.7:80", "@1.1.1.1:25", "metadata.google.internal@169.254.169.254:80",
			},
			[]string{"@10.0.0.5:22", "@10.0.0.6:5432", "@10.0.0.5:5432/udp", "@192.168.1.5:80", "metadata.google.internal@169.254.169.253:80"},
		},
		{
			"all addresses are not the private ones", api.NetAllow,
			[]string{"+0.0.0.0/0", "+::/0", "+192.0.0.0/8:443", "+192.168.1.5/32:22"},
			[]string{"@1.1.1.1:1", "@2606::1:1", "@192.1.1.1:443", "@192.168.1.5:22", "nowhere.example@1.1.1.1:443"},
			[]string{"@10.0.0.1:1", "@192.168.0.1:443", "@192.168.1.5:443", "@203.0.113.9:1", "@fd00::1:1", "@::ffff:10.0.0.1:1", "@127.0.0.1:1", "@1.1.1.1:1/udp"},
		},
		{
			"the first match wins", api.NetAllow,
			[]string{"+a.example:443", "-*.example", "+b.example", "+8.8.8.0/24:53", "-8.8.0.0/16", "+8.0.0.0/8"},
			[]string{"a.example:443", "@8.8.8.8:53", "@8.9.0.1:80", "a.example@8.8.8.8:443"},
			[]string{"a.example:80", "b.example:443", "@8.8.8.8:80", "@8.8.4.4:53", "b.example@8.9.0.1:443"},
		},
		{
			"also between names and addresses", api.NetAllow,
			[]string{"-1.2.0.0/16", "+a.example", "-1.3.0.0/16", "-a.example:25"},
			[]string{"a.example:443", "a.example@1.3.0.1:443", "a.example@1.4.0.1:25"},
			[]string{"a.example@1.2.0.1:443"},
		},
		{
			"a denial is for both protocols", api.NetOpen,
			[]string{"-1.1.1.1", "-9.9.9.9/udp", "-8.8.8.8/tcp", "-*:25"},
			[]string{"@9.9.9.9:53", "@8.8.8.8:53/udp", "@1.0.0.1:53/udp"},
			[]string{"@1.1.1.1:53", "@1.1.1.1:53/udp", "one.example@1.1.1.1:443/udp", "@9.9.9.9:53/udp", "@8.8.8.8:53", "@1.2.3.4:25", "mx.example:25", "mx.example@1.2.3.4:25"},
		},
		{
			"a star is every name, but no address", api.NetAllow,
			[]string{"+*:443"},
			[]string{"any.example:443", "any.example@1.2.3.4:443"},
			[]string{"@1.2.3.4:443", "any.example:80", "any.example@10.0.0.1:443", "metadata.google.internal:443", "host.smolvm.internal:443", "localhost:443"},
		},
		{
			"the host's ports", api.NetAllow,
			[]string{"+host.smolvm.internal:5000", "+*.internal"},
			[]string{"host.smolvm.internal:5000", "HOST.smolvm.internal.:5000", "host.smolvm.internal@127.0.0.1:5000", "x.internal:80"},
			[]string{
				"host.smolvm.internal:5001", "host.smolvm.internal:5000/udp", "host.smolvm.internal@10.0.0.1:5000", "host.smolvm.internal@127.0.0.2:5000",
				"x.smolvm.internal:80", "@127.0.0.1:5000", "metadata.google.internal:80", "x.internal@127.0.0.1:5000",
			},
		},
		{
			"the host's ports, denied before", api.NetOpen,
			[]string{"-*:22", "+host.smolvm.internal:20-30"},
			[]string{"host.smolvm.internal:21"},
			[]string{"host.smolvm.internal:22"},
		},
		{
			"a closed name, opened by name and address", api.NetAllow,
			[]string{"+metadata.google.internal:80", "+169.254.169.254:80"},
			[]string{"metadata.google.internal@169.254.169.254:80"},
			[]string{"metadata.google.internal@169.254.169.253:80", "metadata.google.internal:443"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := compile(t, tt.mode, tt.rules...)
			for _, text := range tt.allow {
				v := p.Flow(flow(t, text))
				if !v.Allow || v.Rule == "" || v.Reason != "" {
					t.Errorf("%s: %+v, want it allowed", text, v)
				}
				if want := strings.HasPrefix(strings.ToLower(text), HostName); v.Host != want {
					t.Errorf("%s: host is %v", text, v.Host)
				}
			}
			for _, text := range tt.deny {
				if v := p.Flow(flow(t, text)); v.Allow || v.Host || v.Rule == "" || v.Reason == "" {
					t.Errorf("%s: %+v, want it denied with a reason", text, v)
				}
			}
		})
	}
}

func TestVerdictTells(t *testing.T) {
	p := compile(t, api.NetAllow, "+a.example:443", "-8.8.8.8")
	tests := []struct {
		flow string
		want Verdict
	}{
		{"a.example:443", Verdict{Allow: true, Rule: "allow a.example:443", HTTP: true}},
		{"a.example@10.0.0.1:443", Verdict{Rule: "allow a.example:443", Reason: "10.0.0.0/8 is closed: a private address"}},
		{"a.example@203.0.113.9:443", Verdict{Rule: "allow a.example:443", Reason: "203.0.113.9 is closed: an address of the host itself"}},
		{"@8.8.8.8:53", Verdict{Rule: "deny 8.8.8.8", Reason: "a rule denies it"}},
		{"b.example:443", Verdict{Rule: "default", Reason: "no rule allows it"}},
	}
	for _, tt := range tests {
		if got := p.Flow(flow(t, tt.flow)); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.flow, got, tt.want)
		}
	}
}

func TestName(t *testing.T) {
	tests := []struct {
		name  string
		mode  api.NetworkMode
		rules []string
		allow []string
		deny  []string
	}{
		{"open", api.NetOpen, []string{"-*:25"}, []string{"a.example", "_dmarc.example.com", "db"}, []string{
			"metadata.google.internal", "metadata", "localhost", "x.localhost", "host.smolvm.internal", "x.smolvm.internal", "1.2.3.4", "", ".",
		}},
		{"none", api.NetNone, nil, nil, []string{"a.example"}},
		{
			"allow", api.NetAllow,
			[]string{"+10.0.0.0/8", "-c.a.example:25", "-b.a.example", "+*.a.example:443", "+u.example/udp", "-d.example/tcp", "+d.example/udp"},
			[]string{"x.a.example", "c.a.example", "u.example", "d.example"},
			[]string{"a.example", "b.a.example", "other.example", "host.smolvm.internal"},
		},
		{"a star", api.NetAllow, []string{"-*.bad.example", "+*"}, []string{"a.example", "bad.example"}, []string{"x.bad.example", "metadata.goog", "localhost", "host.smolvm.internal"}},
		{"exactly named", api.NetOpen, []string{"+metadata.goog"}, []string{"metadata.goog"}, []string{"metadata"}},
		{"nothing at all", api.NetOpen, []string{"-*"}, nil, []string{"a.example"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := compile(t, tt.mode, tt.rules...)
			for _, name := range tt.allow {
				if v := p.Name(name); !v.Allow || v.Host {
					t.Errorf("%s: %+v", name, v)
				}
			}
			for _, name := range tt.deny {
				if v := p.Name(name); v.Allow || v.Reason == "" {
					t.Errorf("%s: %+v", name, v)
				}
			}
		})
	}
	if v := compile(t, api.NetOpen, "+host.smolvm.internal:1").Name("Host.SmolVM.internal."); !v.Allow || !v.Host {
		t.Errorf("the host: %+v", v)
	}
}

func TestClosed(t *testing.T) {
	p := compile(t, api.NetOpen, "+10.1.0.0/16:80", "-10.1.1.1", "+0.0.0.0/0", "+192.168.1.0/24")
	for text, want := range map[string]bool{
		"1.1.1.1": false, "198.51.100.7": false, "2606::1": false, "10.1.2.3": false, "10.1.1.1": false, "192.168.1.4": false,
		"10.2.0.0": true, "192.168.1.5": true, "192.168.2.1": true, "127.0.0.1": true, "::ffff:10.2.0.0": true, "::ffff:10.1.0.1": false, "fe80::1%x": true, "2606::1%x": true,
	} {
		if got := p.Closed(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if !p.Closed(netip.Addr{}) {
		t.Error("no address is not closed")
	}
}

// TestClosedTable holds the table to the list that is promised.
func TestClosedTable(t *testing.T) {
	const want = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.168.0.0/16 198.18.0.0/15 224.0.0.0/3 168.63.129.16/32 " +
		"::/128 ::1/128 ::ffff:0.0.0.0/96 64:ff9b::/96 64:ff9b:1::/48 2002::/16 2001::/32 fc00::/7 fe80::/10 ff00::/8"
	var got []string
	for _, c := range closedPrefixes(nil) {
		got = append(got, c.prefix.String())
		if c.prefix != c.prefix.Masked() {
			t.Errorf("%s has bits beyond its length", c.prefix)
		}
	}
	if strings.Join(got, " ") != want {
		t.Errorf("the table is\n%s\nwant\n%s", strings.Join(got, " "), want)
	}
}

func TestCompileRefuses(t *testing.T) {
	tests := []struct {
		name  string
		mode  api.NetworkMode
		rules []string
		says  string
	}{
		{"loopback", api.NetAllow, []string{"+127.0.0.1:80"}, "loopback"},
		{"loopback of IPv6", api.NetOpen, []string{"+::1"}, "loopback"},
		{"synthetic addresses", api.NetAllow, []string{"+198.18.5.0/24"}, "cannot be opened"},
		{"multicast", api.NetAllow, []string{"+224.0.0.0/4"}, "cannot be opened"},
		{"no host", api.NetAllow, []string{"+0.0.0.0"}, "cannot be opened"},
		{"localhost", api.NetAllow, []string{"+localhost:80"}, "the guest itself"},
		{"the host's every port", api.NetAllow, []string{"+host.smolvm.internal"}, "every service"},
		{"a reserved name", api.NetAllow, []string{"+other.smolvm.internal:80"}, "only the name"},
		{"reserved names", api.NetAllow, []string{"+*.smolvm.internal:80"}, "only the name"},
		{"an address in disguise", api.NetAllow, []string{"+127.1:80"}, "no host name"},
		{"another", api.NetAllow, []string{"+0x7f000001"}, "no host name"},
		{"a label too long", api.NetAllow, []string{"+" + strings.Repeat("a", 64) + ".example"}, "no host name"},
		{"IDNA says no", api.NetAllow, []string{"+a\u200eb.example"}, "no host name"},
		{"a name that cannot be denied", api.NetOpen, []string{"-evil.example"}, "cannot be enforced"},
		{"nor so", api.NetAllow, []string{"+0.0.0.0/0", "-*.evil.example"}, "cannot be enforced"},
		{"nor with both halves", api.NetAllow, []string{"+0.0.0.0/1", "+128.0.0.0/1", "-*.evil.example"}, "cannot be enforced"},
		{"rules for nothing", api.NetNone, []string{"+a.example"}, "takes no rules"},
		{"no mode", "", []string{"+a.example"}, "without a mode"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile(api.NetworkPolicy{Mode: tt.mode, Rules: rules(t, tt.rules...)}, Options{})
			if !errdefs.Is(err, errdefs.Invalid) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
	for name, mode := range map[string]api.NetworkMode{"zero": "", "open": api.NetOpen, "none": api.NetNone, "allow": api.NetAllow} {
		if _, err := Compile(api.NetworkPolicy{Mode: mode}, Options{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A host whose own address is loopback opens nothing.
	if _, err := Compile(api.NetworkPolicy{Mode: api.NetOpen, Rules: rules(t, "+127.0.0.1")}, Options{HostAddrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}); err == nil {
		t.Error("the host's address made loopback openable")
	}
}

func TestResolvers(t *testing.T) {
	p, err := Compile(api.NetworkPolicy{DNS: []string{"192.0.2.1", "192.0.2.1:5353", "2001:db8::1", "[2001:db8::1]:53", "::ffff:192.0.2.1"}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(p.Resolvers()), "[192.0.2.1:53 192.0.2.1:5353 [2001:db8::1]:53 [2001:db8::1]:53 192.0.2.1:53]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestCanonical(t *testing.T) {
	long := strings.Repeat("a.", 126) + "a"
	tests := []struct{ in, want string }{
		{"example.com", "example.com"},
		{"EXAMPLE.Com.", "example.com"},
		{"Bücher.example", "xn--bcher-kva.example"},
		{"ＥＸＡＭＰＬＥ.com", "example.com"},
		{"bücher。example", "xn--bcher-kva.example"},
		{"_dmarc.a-b.example", "_dmarc.a-b.example"},
		{"r3---sn-x.example", "r3---sn-x.example"},
		{"1.2.3.4.example", "1.2.3.4.example"},
		{"4chan.org", "4chan.org"},
		{"x.0xyz", "x.0xyz"},
		{long, long},
		{long + ".", long},
		{"a." + long, ""},
		{"", ""},
		{".", ""},
		{"..", ""},
		{"a..b", ""},
		{".a", ""},
		{"a..", ""},
		{"a b", ""},
		{"a\x00.com", ""},
		{"a/b", ""},
		{"*.a", ""},
		{"127.0.0.1", ""},
		{"127.1.", ""},
		{"１２７.0.0.1", ""},
		{"0x7F.1", ""},
		{"x.0x", ""},
		{"::1", ""},
		{strings.Repeat("a", 64), ""},
		{"\xff.com", ""},
	}
	for _, tt := range tests {
		got, err := Canonical(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q: %q (%v), want %q", tt.in, got, err, tt.want)
		}
	}
}
