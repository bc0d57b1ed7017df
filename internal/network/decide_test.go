package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/smolvm/smolvm/api"
)

// thousand is a policy of 1,000 rules: 600 names, 200 wildcards, 200 ranges; and flows of which each finds one.
func thousand(t testing.TB) (*Policy, []Flow) {
	t.Helper()
	var texts []string
	var flows []Flow
	addr := netip.MustParseAddr("151.101.0.223")
	for i := range 600 {
		name := fmt.Sprintf("service-%d.region%d.example.com", i, i%7)
		texts = append(texts, "+"+name+":443")
		flows = append(flows, Flow{Name: name, Addr: addr, Port: 443})
		addr = addr.Next()
	}
	for i := range 200 {
		zone := fmt.Sprintf("zone-%d.net", i)
		texts = append(texts, "+*."+zone+":443")
		flows = append(flows, Flow{Name: "host." + zone, Addr: addr, Port: 443})
		addr = addr.Next()
	}
	for i := range 200 {
		r := fmt.Sprintf("%d.%d.%d.0/24", 20+i%50, i, i*3%256)
		texts = append(texts, "+"+r+":443")
		flows = append(flows, Flow{Addr: netip.MustParsePrefix(r).Addr().Next(), Port: 443})
	}
	return compile(t, api.NetAllow, texts...), flows
}

func TestDecisionAllocatesNothing(t *testing.T) {
	p, flows := thousand(t)
	i := 0
	if n := testing.AllocsPerRun(10_000, func() {
		f := flows[i%len(flows)]
		if i++; !p.Flow(f).Allow || p.Flow(Flow{Name: "no.example", Port: 1}).Allow || p.Closed(f.Addr) {
			t.Errorf("%+v", f)
		}
		if f.Name != "" && !p.Name(f.Name).Allow {
			t.Errorf("the name of %+v", f)
		}
	}); n != 0 {
		t.Errorf("%v allocations per decision", n)
	}
}

// BenchmarkDecision is what a decision costs beside the least that anybody could do: look the name and the address up in two
// maps of as many entries. The goal is at most twice that.
func BenchmarkDecision(b *testing.B) {
	p, flows := thousand(b)
	names, addrs := map[string]int{}, map[netip.Addr]int{}
	for i, f := range flows {
		names[f.Name], addrs[f.Addr] = i, i
	}
	b.Run("pair", func(b *testing.B) {
		b.ReportAllocs()
		n, i := 0, 0
		for b.Loop() {
			f := flows[i]
			n += names[f.Name] + addrs[f.Addr]
			if i++; i == len(flows) {
				i = 0
			}
		}
		if n < 0 {
			b.Error(n)
		}
	})
	b.Run("policy", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if !p.Flow(flows[i]).Allow {
				b.Fatal(flows[i])
			}
			if i++; i == len(flows) {
				i = 0
			}
		}
	})
}

// slow is Flow as plainly as it can be said: every rule in turn.
func slow(p api.NetworkPolicy, o Options, f Flow) Verdict {
	name, err := Canonical(f.Name)
	if f.Name != "" && err != nil || f.Port == 0 || f.Name == "" && !f.Addr.IsValid() || f.Addr.Zone() != "" || p.Mode == api.NetNone {
		return Verdict{}
	}
	f.Name, f.Addr = name, f.Addr.Unmap()
	var fence netip.Prefix // the narrowest closed range
	for _, c := range closedPrefixes(o.HostAddrs) {
		if f.Addr.IsValid() && c.prefix.Contains(f.Addr) && (!fence.IsValid() || c.prefix.Bits() > fence.Bits()) {
			fence = c.prefix
		}
	}
	allows := func(i int) bool { return i >= 0 && p.Rules[i].Action == api.RuleAllow }
	byName := slowName(p, f, nil)
	if name == HostName {
		return Verdict{Allow: allows(byName) && (!f.Addr.IsValid() || f.Addr == netip.MustParseAddr("127.0.0.1")), Host: true}
	}
	byAddr := slowAddr(p, f, fence)
	_, special := closedName(name)
	var v Verdict
	switch {
	case byName < 0 && byAddr < 0:
		v.Allow = p.Mode == api.NetOpen && !special && !fence.IsValid()
	case byAddr < 0 || byName >= 0 && byName < byAddr:
		v.Allow = allows(byName) && (!fence.IsValid() || allows(byAddr))
	default:
		v.Allow = allows(byAddr)
	}
	if !v.Allow || name == "" {
		return v
	}
	tcp := f
	tcp.Proto = TCP
	seen, opaque := slowLook(p, o, tcp)
	if f.Proto == TCP {
		v.HTTP, v.Opaque = seen, opaque
		return v
	}
	asked := f.Port == 443 && slowSecret(o, name)
	for _, r := range p.Rules {
		asked = asked || r.OfRequests() && slowMatches(r, tcp)
	}
	v.Allow = !asked && (allows(byName) || !seen && !opaque)
	return v
}

// slowLook says whether a flow is looked into, and whether it is kept closed.
func slowLook(p api.NetworkPolicy, o Options, f Flow) (seen, opaque bool) {
	if i := slowName(p, f, nil); i >= 0 && p.Rules[i].Action == api.RuleAllow {
		opaque = p.Rules[i].Opaque
		seen = !opaque && (p.Rules[i].OfRequests() || f.Port == 443 || f.Port == 80)
	}
	return seen || !opaque && f.Port == 443 && slowSecret(o, f.Name), opaque
}

func slowSecret(o Options, name string) bool {
	return slices.ContainsFunc(o.SecretHosts, func(host string) bool {
		zone, wild := strings.CutPrefix(host, "*")
		return name == host || wild && strings.HasSuffix(name, zone)
	})
}

// slowName is the first rule for a flow's name, or for a request in it; -1: none.
func slowName(p api.NetworkPolicy, f Flow, about *request) int {
	return slices.IndexFunc(p.Rules, func(r api.NetworkRule) bool {
		return f.Name != "" && slowMatches(r, f) && (about == nil || slowAsks(r, *about))
	})
}

// slowMatches reports whether a rule by name matches a flow.
func slowMatches(r api.NetworkRule, f Flow) bool {
	allow := r.Action == api.RuleAllow
	_, special := closedName(f.Name)
	zone, wild := strings.CutPrefix(r.Host, "*.")
	zone, _ = Canonical(zone)
	switch {
	case r.Host == "" || !slowPort(r, f):
		return false
	case r.Host == "*":
		return !(special && allow)
	case wild:
		return f.Name != zone && below(f.Name, zone) && !(special && allow)
	}
	return f.Name == zone
}

func slowPort(r api.NetworkRule, f Flow) bool {
	udp := r.Proto == "udp" || r.Proto == "" && r.Action != api.RuleAllow
	if f.Proto == UDP && !udp || f.Proto == TCP && r.Proto == "udp" {
		return false
	}
	ports := r.Ports
	if r.OfRequests() && len(ports) == 0 {
		ports = []string{"80", "443"}
	}
	return len(ports) == 0 || slices.ContainsFunc(ports, func(text string) bool {
		low, high, _ := api.ParsePorts(text)
		return low <= f.Port && f.Port <= high
	})
}

func slowAddr(p api.NetworkPolicy, f Flow, fence netip.Prefix) int {
	return slices.IndexFunc(p.Rules, func(r api.NetworkRule) bool {
		if r.CIDR == "" {
			return r.Host == "*" && f.Name == "" && r.Action == api.RuleDeny && slowPort(r, f)
		}
		prefix, _ := api.ParseCIDR(r.CIDR)
		allow := r.Action == api.RuleAllow
		return slowPort(r, f) && f.Addr.IsValid() && prefix.Contains(f.Addr) && !(allow && fence.IsValid() && prefix.Bits() < fence.Bits())
	})
}

// slowAsks reports whether a rule matches a request, by the globs as they are written.
func slowAsks(r api.NetworkRule, about request) bool {
	if len(r.Methods) > 0 && !slices.Contains(r.Methods, about.method) {
		return false
	}
	return len(r.Paths) == 0 || about.path != "" && slices.ContainsFunc(r.Paths, func(g string) bool {
		ok, err := doublestar.Match(strings.ReplaceAll(g, "%2f", "%2F"), about.path)
		return ok && err == nil
	})
}

// FuzzFlow compares the compiled policy with the plain one, and holds both to what must never be.
func FuzzFlow(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3}, "a.example", []byte{10, 0, 0, 1}, uint16(443), false)
	f.Add([]byte{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}, "host.smolvm.internal", []byte{127, 0, 0, 1}, uint16(80), true)
	f.Add([]byte{30, 31, 32, 33, 34, 35, 36}, "x.b.example", []byte{0xfd, 15: 1}, uint16(22), false)
	texts := []string{
		"+a.example", "+*.b.example:443", "-x.b.example", "+*:80", "-*:25", "+10.0.0.0/8:80", "-10.1.0.0/16", "+10.1.1.1", "+0.0.0.0/1:443", "+192.168.1.5:22",
		"+192.168.0.0/16/udp", "+fd00::/8", "-fd00::1/128", "+host.smolvm.internal:80", "+metadata.goog", "+169.254.169.254:80", "-a.example/udp", "+a.example:1-1000/udp",
		"-0.0.0.0/0", "+[2000::/3]:443", "-203.0.113.0/24:22-80", "+203.0.113.9:22", "+64:ff9b::/96", "+*.example/udp",
		"+a.example=GET", "+*.b.example:443,8443=*:/x", "+*=POST", "+x.b.example=opaque", "+*.example:443=opaque", "+*.example=GET:/y", "+*:443/udp",
	}
	o := Options{SecretHosts: []string{"secret.example", "*.b.example"}}
	o.HostAddrs = []netip.Addr{netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("192.168.1.5")}
	all := rules(f, texts...)
	f.Fuzz(func(t *testing.T, picks []byte, name string, raw []byte, port uint16, udp bool) {
		p := api.NetworkPolicy{Mode: api.NetOpen}
		for i, pick := range picks {
			if i == 0 && pick&1 == 1 {
				p.Mode = api.NetAllow
			}
			p.Rules = append(p.Rules, all[int(pick)%len(all)])
		}
		o := o
		c, err := Compile(p, o)
		if err != nil { // perhaps it does not let the secrets out
			o.SecretHosts = nil
			if c, err = Compile(p, o); err != nil {
				return
			}
		}
		addr, _ := netip.AddrFromSlice(raw)
		fl := Flow{Name: name, Addr: addr, Port: port}
		if udp {
			fl.Proto = UDP
		}
		got := c.Flow(fl)
		if want := slow(p, o, fl); got.Allow != want.Allow || got.HTTP != want.HTTP || got.Opaque != want.Opaque {
			t.Fatalf("%+v of %v: %+v, want %+v", fl, p.Rules, got, want)
		}
		if got.Allow && got.Host != (HostName == mustCanonical(name)) {
			t.Errorf("%+v: %+v", fl, got)
		}
		if a := addr.Unmap(); got.Allow && !got.Host && a.IsValid() && (a.IsLoopback() || a.IsMulticast() || a.IsUnspecified()) {
			t.Errorf("%+v is allowed: %+v", fl, got)
		}
		if got.Allow && !got.Host && addr.IsValid() && c.Closed(addr) {
			t.Errorf("%+v is allowed, and its address is closed", fl)
		}
		if addr.IsValid() && name != "" && got.Allow {
			fl.Addr = netip.Addr{}
			if before := c.Flow(fl); before.Allow && (before.HTTP != got.HTTP || before.Opaque != got.Opaque) {
				t.Errorf("%+v: %+v, and with its address %+v", fl, before, got)
			}
		}
		if got.Allow && name != "" && !c.Name(name).Allow && !addr.IsValid() {
			t.Errorf("%+v is allowed, and its name is not", fl)
		}
	})
}

// FuzzRequest compares Request with every rule in turn, and holds it to the two readings of an encoded slash.
func FuzzRequest(f *testing.F) {
	f.Add([]byte{1, 2, 3}, "a.example", uint16(443), "GET", "/repos/a%2fb")
	f.Add([]byte{11, 0, 5, 9}, "x.b.example", uint16(8443), "POST", "/a/b")
	f.Add([]byte{11, 6, 5, 9}, "b.example", uint16(80), "PUT", "/@s%2Fn/..")
	all := rules(f,
		"+a.example=GET:/repos/**", "+a.example=POST,PUT:/{a,b}/*,/x?", "+*.example:443,8443=GET:/**/c,/@s%2fn", "-x.b.example", "+*.b.example", "+*=*:/a/b,/@s/*", "-*:8443",
		"+a.example:1-1000=DELETE", "+b.example=GET:/[a-c]*/%2F", "+b.example=opaque", "+c.example=*:/*", "-*.example",
	)
	f.Fuzz(func(t *testing.T, picks []byte, name string, port uint16, method, escaped string) {
		p := api.NetworkPolicy{Mode: api.NetAllow}
		for _, pick := range picks {
			p.Rules = append(p.Rules, all[int(pick)%len(all)])
		}
		c, err := Compile(p, Options{})
		if err != nil {
			return
		}
		path, err := CleanPath(escaped)
		if err != nil {
			path.Clean = ""
		}
		fl := Flow{Name: name, Port: port}
		got := c.Request(fl, method, path.Clean)
		if got.Allow && !c.Flow(fl).Allow {
			t.Errorf("%+v: it is allowed, and its connection is not", fl)
		}
		if fl.Name, err = Canonical(name); err != nil || port == 0 {
			if got.Allow {
				t.Errorf("%q port %d: %+v", name, port, got)
			}
			return
		}
		if fl.Name == HostName {
			return
		}
		want := true
		for _, reading := range []string{path.Clean, strings.ReplaceAll(path.Clean, "%2F", "/")} {
			i := slowName(p, fl, &request{method, reading})
			want = want && i >= 0 && p.Rules[i].Action == api.RuleAllow
		}
		if got.Allow != want {
			t.Errorf("%s %s:%d %q of %v: %+v, want %v", method, name, port, path.Clean, p.Rules, got, want)
		}
	})
}

func mustCanonical(name string) string {
	c, _ := Canonical(name)
	return c
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"Example.COM.", "bücher.example", "127.1", "0x7f.1", "a..b", "xn--a", "\xff", "ａ.b", strings.Repeat("a.", 130)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := Canonical(name)
		if err != nil {
			return
		}
		if again, err := Canonical(got); again != got || err != nil {
			t.Errorf("%q: %q, and again %q (%v)", name, got, again, err)
		}
		if _, err := netip.ParseAddr(got); err == nil || len(got) > maxName || got != strings.ToLower(got) || strings.HasSuffix(got, ".") {
			t.Errorf("%q: %q", name, got)
		}
	})
}

func FuzzRanges(f *testing.F) {
	f.Add([]byte{10, 0, 0, 0, 8, 10, 1, 0, 0, 16}, []byte{10, 1, 2, 3})
	f.Add([]byte{255, 255, 255, 255, 32, 0, 0, 0, 0, 0}, []byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, raw, ask []byte) {
		nodes := map[netip.Prefix]*node{}
		for _, c := range closedPrefixes(nil) {
			nodes[c.prefix] = &node{prefix: c.prefix, entry: &c.closedRange}
		}
		for ; len(raw) >= 5; raw = raw[5:] {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte(raw)), int(raw[4])%33)
			if binary.BigEndian.Uint16(raw)%3 == 0 { // some of them in IPv6
				var b [16]byte
				copy(b[:], raw[:4])
				p = netip.PrefixFrom(netip.AddrFrom16(b), int(raw[4])%129)
			}
			if p = p.Masked(); nodes[p] == nil && !p.Addr().Is4In6() {
				nodes[p] = &node{prefix: p}
			}
		}
		addr, ok := netip.AddrFromSlice(ask)
		if addr = addr.Unmap(); !ok {
			return
		}
		var want *node
		for _, n := range nodes {
			if n.prefix.Contains(addr) && (want == nil || n.prefix.Bits() > want.prefix.Bits()) {
				want = n
			}
		}
		r := makeRanges(nodes)
		if got, ok := r.find(addr); !ok || got != want {
			t.Fatalf("%s: %+v, want %+v", addr, got, want)
		}
		for n := want; n != nil; n = n.parent {
			if !n.prefix.Contains(addr) || n.parent != nil && n.parent.prefix.Bits() >= n.prefix.Bits() {
				t.Errorf("%s: parent %v of %v", addr, n.parent, n.prefix)
			}
		}
	})
}
