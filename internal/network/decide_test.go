package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

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
func slow(p api.NetworkPolicy, host []netip.Addr, f Flow) bool {
	name, err := Canonical(f.Name)
	if f.Name != "" && err != nil || f.Port == 0 || f.Name == "" && !f.Addr.IsValid() || f.Addr.Zone() != "" || p.Mode == api.NetNone {
		return false
	}
	addr := f.Addr.Unmap()
	var fence netip.Prefix // the narrowest closed range
	for _, c := range closedPrefixes(host) {
		if addr.IsValid() && c.prefix.Contains(addr) && (!fence.IsValid() || c.prefix.Bits() > fence.Bits()) {
			fence = c.prefix
		}
	}
	_, special := closedName(name)
	byName, byAddr := -1, -1
	for i, r := range p.Rules {
		allow := r.Action == api.RuleAllow
		udp := r.Proto == "udp" || r.Proto == "" && !allow
		tcp := r.Proto != "udp"
		if f.Proto == UDP && !udp || f.Proto == TCP && !tcp {
			continue
		}
		if len(r.Ports) > 0 && !slices.ContainsFunc(r.Ports, func(text string) bool {
			low, high, _ := api.ParsePorts(text)
			return low <= f.Port && f.Port <= high
		}) {
			continue
		}
		zone, wild := strings.CutPrefix(r.Host, "*.")
		zone, _ = Canonical(zone)
		switch {
		case r.Host == "*" && (f.Name != "" || !allow):
			if byName < 0 && !(special && allow) {
				byName = i
			}
		case r.Host == "*" || r.CIDR == "" && f.Name == "":
		case r.Host != "" && wild:
			if byName < 0 && name != zone && below(name, zone) && !(special && allow) {
				byName = i
			}
		case r.Host != "":
			if byName < 0 && name == zone {
				byName = i
			}
		default:
			prefix, _ := api.ParseCIDR(r.CIDR)
			if byAddr < 0 && addr.IsValid() && prefix.Contains(addr) && !(allow && fence.IsValid() && prefix.Bits() < fence.Bits()) {
				byAddr = i
			}
		}
	}
	allows := func(i int) bool { return i >= 0 && p.Rules[i].Action == api.RuleAllow }
	if name == HostName {
		return allows(byName) && (!addr.IsValid() || addr == netip.MustParseAddr("127.0.0.1"))
	}
	switch {
	case byName < 0 && byAddr < 0:
		return p.Mode == api.NetOpen && !special && !fence.IsValid()
	case byAddr < 0 || byName >= 0 && byName < byAddr:
		return allows(byName) && (!fence.IsValid() || allows(byAddr))
	default:
		return allows(byAddr)
	}
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
	}
	host := []netip.Addr{netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("192.168.1.5")}
	all := rules(f, texts...)
	f.Fuzz(func(t *testing.T, picks []byte, name string, raw []byte, port uint16, udp bool) {
		p := api.NetworkPolicy{Mode: api.NetOpen}
		for i, pick := range picks {
			if i == 0 && pick&1 == 1 {
				p.Mode = api.NetAllow
			}
			p.Rules = append(p.Rules, all[int(pick)%len(all)])
		}
		c, err := Compile(p, Options{HostAddrs: host})
		if err != nil {
			return
		}
		addr, _ := netip.AddrFromSlice(raw)
		fl := Flow{Name: name, Addr: addr, Port: port}
		if udp {
			fl.Proto = UDP
		}
		got := c.Flow(fl)
		if want := slow(p, host, fl); got.Allow != want {
			t.Fatalf("%+v of %v: %+v, want %v", fl, p.Rules, got, want)
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
		if got.Allow && name != "" && !c.Name(name).Allow && !addr.IsValid() {
			t.Errorf("%+v is allowed, and its name is not", fl)
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
