package gateway

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func defaultSubnet() tcpip.Subnet { return header.IPv4EmptySubnet }

func open() api.NetworkPolicy { return api.NetworkPolicy{Mode: api.NetOpen} }

// TestTCP: bytes both ways, half-close, the outside's refusal and reset are all what the guest would see without us.
func TestTCP(t *testing.T) {
	w := newWorld(t, open(), nil)
	w.serve("198.51.100.1:80", func(c net.Conn) {
		b, _ := io.ReadAll(c) // the guest's half-close ends it
		_, _ = c.Write(b)
	})
	w.serve("198.51.100.1:81", func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1)) // before it, the reset could come as a refusal
		_ = c.(*net.TCPConn).SetLinger(0)
	})

	data := make([]byte, 8<<20)
	_, _ = rand.Read(data)
	c := w.mustDial("198.51.100.1:80")
	go func() {
		_, _ = c.Write(data)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back as %d, %v", len(data), len(got), err)
	}
	_ = c.Close()
	r := w.found("the transfer", func(r api.NetRecord) bool { return r.Kind == "tcp" && r.Port == 80 })
	if r.Verdict != "allow" || r.Addr != "198.51.100.1" || r.BytesIn != int64(len(data)) || r.BytesOut != int64(len(data)) || r.Reason != "" {
		t.Errorf("record %+v", r)
	}

	if _, err := w.dial("198.51.100.1:82"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a port nobody listens on: %v, want a refusal", err)
	}
	reset := w.mustDial("198.51.100.1:81")
	_ = reset.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := reset.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := reset.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("a reset outside came as %v", err)
	}
	until(t, "all flows end", func() bool { return w.gateway.Stats().Open == 0 })
}

// TestDenied: what the policy refuses is reset at once, not silently dropped, and recorded.
func TestDenied(t *testing.T) {
	w := newWorld(t, open(), nil)
	for _, at := range []string{
		"10.0.0.1:80", "169.254.169.254:80", "192.168.1.1:22", "100.64.0.1:80", "168.63.129.16:80",
		"198.18.5.5:443", "10.83.0.1:80", "10.83.0.1:22", "172.31.255.255:443",
	} {
		begin := time.Now()
		if c, err := w.dial(at); err == nil {
			_ = c.Close()
			t.Errorf("%s is open", at)
		} else if time.Since(begin) > 3*time.Second {
			t.Errorf("%s: refused after %s: %v", at, time.Since(begin), err)
		}
		a := netip.MustParseAddrPort(at)
		r := w.found("the refusal of "+at, func(r api.NetRecord) bool { return r.Addr == a.Addr().String() && r.Port == int(a.Port()) })
		if r.Verdict != "deny" || r.Reason == "" {
			t.Errorf("%s: record %+v", at, r)
		}
	}
	none := newWorld(t, api.NetworkPolicy{Mode: api.NetNone}, nil)
	none.serve("198.51.100.1:80", echo)
	if _, err := none.dial("198.51.100.1:80"); err == nil {
		t.Error("mode none lets a connection through")
	}
	if m := none.ask("example.com.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeNameError {
		t.Errorf("mode none answers %v", m)
	}
}

// TestAllow: in mode allow an allowed name works by its synthetic address, and nothing else does.
func TestAllow(t *testing.T) {
	w := newWorld(t, api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{
		{Action: api.RuleAllow, Host: "good.example", Ports: []string{"8080"}},
		{Action: api.RuleAllow, Host: "rebind.example", Ports: []string{"8080"}},
	}}, nil)
	w.outside.has("good.example.", "198.51.100.1")
	w.outside.has("rebind.example.", "10.0.0.1")
	w.outside.has("bad.example.", "198.51.100.1")
	w.serve("198.51.100.1:8080", echo)
	w.serve("198.51.100.1:81", echo)
	w.serve("10.0.0.1:8080", echo)

	addr := func(name string) string {
		m := w.ask(name, dnsmessage.TypeA)
		if len(m.Answers) != 1 {
			t.Fatalf("%s: %v", name, m)
		}
		a := netip.AddrFrom4(m.Answers[0].Body.(*dnsmessage.AResource).A)
		if !netip.MustParsePrefix("198.18.0.0/15").Contains(a) {
			t.Errorf("%s is told as %s", name, a)
		}
		return a.String()
	}
	good := addr("GOOD.example.")
	c := w.mustDial(good + ":8080")
	roundTrip(t, c)
	_ = c.Close()
	r := w.found("the flow", func(r api.NetRecord) bool { return r.Kind == "tcp" && r.Verdict == "allow" })
	if r.Name != "good.example" || r.Addr != "198.51.100.1" || !strings.Contains(r.Rule, "good.example") {
		t.Errorf("record %+v", r)
	}
	for _, at := range []string{good + ":81", "198.51.100.1:8080", addr("rebind.example.") + ":8080", "198.18.77.77:8080"} {
		if c, err := w.dial(at); err == nil {
			_ = c.Close()
			t.Errorf("%s is open", at)
		}
	}
	for _, name := range []string{"bad.example.", "x.good.example.", "example."} {
		if m := w.ask(name, dnsmessage.TypeA); m.RCode != dnsmessage.RCodeNameError || len(m.Answers) > 0 {
			t.Errorf("%s: %v", name, m)
		}
	}
	if m := w.ask("good.example.", dnsmessage.TypeTXT); m.RCode != dnsmessage.RCodeSuccess || len(m.Answers) > 0 {
		t.Errorf("TXT is forwarded: %v", m)
	}
}

func roundTrip(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "ping" {
		t.Fatalf("%q, %v", b, err)
	}
}

// TestUDP: datagrams both ways, and "port unreachable" for what may not be.
func TestUDP(t *testing.T) {
	w := newWorld(t, open(), func(o *Options) { o.IdleUDP = 2 * time.Second })
	p, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	defer func() { _ = p.Close(); <-done }()
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = p.WriteTo(b[:n], from)
		}
	}()
	w.outside.leads("198.51.100.1:123", p.LocalAddr().String())
	c := w.udp("198.51.100.1:123")
	for _, n := range []int{1, 1400, 40000} {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1<<16)
		if got, err := c.Read(b); err != nil || got != n {
			t.Errorf("%d bytes came back as %d, %v", n, got, err)
		}
	}
	r := w.found("the flow's end", func(r api.NetRecord) bool { return r.Kind == "udp" && r.Port == 123 })
	if r.Verdict != "allow" || r.BytesIn != 41401 || r.BytesOut != 41401 || r.Reason != "idle" {
		t.Errorf("record %+v", r)
	}
	closed := w.udp("10.0.0.1:123")
	_ = closed.SetDeadline(time.Now().Add(10 * time.Second))
	until(t, "port unreachable", func() bool {
		_, err := closed.Write([]byte("x"))
		return err != nil && strings.Contains(err.Error(), "refused")
	})
}

// TestDNS: the name server over both transports.
func TestDNS(t *testing.T) {
	w := newWorld(t, open(), nil)
	w.outside.has("two.example.", "10.0.0.9", "198.51.100.9")
	w.outside.has("six.example.", "2001:db8::1")
	w.outside.has("in.example.", "169.254.169.254")
	a := func(m dnsmessage.Message) string {
		if len(m.Answers) != 1 {
			return m.GoString()
		}
		return netip.AddrFrom4(m.Answers[0].Body.(*dnsmessage.AResource).A).String()
	}
	if got := a(w.ask("two.example.", dnsmessage.TypeA)); got != "198.51.100.9" {
		t.Errorf("a closed answer is not dropped: %s", got)
	}
	if got := a(w.ask("six.example.", dnsmessage.TypeA)); !strings.HasPrefix(got, "198.18.") {
		t.Errorf("a name with IPv6 only: %s", got)
	}
	for _, name := range []string{"in.example.", "two.example."} {
		kind := map[string]dnsmessage.Type{"in.example.": dnsmessage.TypeA, "two.example.": dnsmessage.TypeAAAA}[name]
		if m := w.ask(name, kind); m.RCode != dnsmessage.RCodeSuccess || len(m.Answers) != 0 {
			t.Errorf("%s %s: %v", name, kind, m)
		}
	}
	if m := w.ask("gone.example.", dnsmessage.TypeA); m.RCode != dnsmessage.RCodeNameError {
		t.Errorf("a name that is not there: %v", m.RCode)
	}
	c := w.mustDial("10.83.0.1:53")
	q := query(t, "two.example.", dnsmessage.TypeA)
	for range 2 {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)); err != nil {
			t.Fatal(err)
		}
		var n [2]byte
		if _, err := io.ReadFull(c, n[:]); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, binary.BigEndian.Uint16(n[:]))
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		if got := a(unpack(t, b)); got != "198.51.100.9" {
			t.Errorf("over TCP: %s", got)
		}
	}
}

// TestPolicyChange: flows that a new policy does not allow are reset, others go on; nothing new opens.
func TestPolicyChange(t *testing.T) {
	w := newWorld(t, open(), nil)
	w.serve("198.51.100.1:80", echo)
	w.serve("198.51.100.2:80", echo)
	gone, stays := w.mustDial("198.51.100.1:80"), w.mustDial("198.51.100.2:80")
	roundTrip(t, gone)
	roundTrip(t, stays)
	w.gateway.SetPolicy(compile(t, api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{{Action: api.RuleAllow, CIDR: "198.51.100.2/32"}}}), testLimits())
	_ = gone.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := gone.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("a flow that is not allowed any more: %v", err)
	}
	roundTrip(t, stays)
	if _, err := w.dial("198.51.100.1:80"); err == nil {
		t.Error("a new flow is let through")
	}
	w.found("why", func(r api.NetRecord) bool { return r.Reason == "the policy has changed" })
}

// TestPolicyChangeWhileDialling: a dial that is under way when the policy changes comes to nothing.
func TestPolicyChangeWhileDialling(t *testing.T) {
	w := newWorld(t, open(), nil)
	w.outside.hang = make(chan struct{})
	result := make(chan error, 1)
	go func() {
		c, err := w.dial("198.51.100.1:80")
		if err == nil {
			_ = c.Close()
		}
		result <- err
	}()
	until(t, "it is dialling", func() bool { return w.gateway.Stats().Open == 1 })
	w.gateway.SetPolicy(compile(t, api.NetworkPolicy{Mode: api.NetNone}), testLimits())
	if err := <-result; err == nil {
		t.Error("it was connected")
	}
	until(t, "it ends", func() bool { return w.gateway.Stats().Open == 0 })
}

// TestIdle: what moves nothing is ended on both sides.
func TestIdle(t *testing.T) {
	w := newWorld(t, open(), func(o *Options) { o.IdleTCP = time.Second })
	w.serve("198.51.100.1:80", echo)
	c := w.mustDial("198.51.100.1:80")
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("an idle connection: %v", err)
	}
}

// TestSlowReader: a guest that does not read holds up only itself, and its memory is bounded.
func TestSlowReader(t *testing.T) {
	w := newWorld(t, open(), nil)
	w.gateway.maxQueued = 1 << 20
	w.serve("198.51.100.1:80", func(c net.Conn) {
		b := make([]byte, 1<<20)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	w.serve("198.51.100.2:80", echo)
	var slow []net.Conn
	for range 20 {
		slow = append(slow, w.mustDial("198.51.100.1:80"))
	}
	roundTrip(t, w.mustDial("198.51.100.2:80"))
	w.found("one that was ended", func(r api.NetRecord) bool { return strings.HasPrefix(r.Reason, "out of memory") })
	for _, c := range slow {
		_ = c.Close()
	}
}

// TestSlow: sides that send a byte now and then, or nothing at all, hold up nobody else, and end with the guest's patience.
func TestSlow(t *testing.T) {
	w := newWorld(t, open(), func(o *Options) { o.IdleTCP = 3 * time.Second })
	w.outside.hang = make(chan struct{})
	stop := make(chan struct{})
	w.serve("198.51.100.1:80", func(c net.Conn) { // drips
		for {
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	w.serve("198.51.100.2:80", echo)
	var slow []*gonet.TCPConn
	for range 10 {
		slow = append(slow, w.mustDial("198.51.100.1:80"))
		never := w.mustDial("198.51.100.2:80") // says nothing
		defer func() { _ = never.Close() }()
	}
	// An outside that never answers: the guest's handshake stays open, and others go on.
	for i := range 10 {
		if err := w.raw.WriteFrame([][]byte{syn(uint16(5000+i), netip.AddrFrom4([4]byte{198, 51, 100, 99}), 80)}); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	for range 20 {
		c := w.mustDial("198.51.100.2:80")
		roundTrip(t, c)
		_ = c.Close()
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("20 round trips beside slow ones took %s", took)
	}
	for _, c := range slow {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
			t.Errorf("a slow one: %v", err)
		}
	}
	close(w.outside.hang)
	close(stop)
	for _, c := range slow {
		_ = c.Close()
	}
	until(t, "all end, the silent ones for being idle", func() bool { return w.gateway.Stats().Open == 0 })
}

// TestFlood: far more attempts than there is room for never have more flows open than the limit, and leave a gateway that
// serves.
func TestFlood(t *testing.T) {
	attempts := 100_000
	if testing.Short() || raceEnabled {
		attempts = 10_000
	}
	w := newWorld(t, open(), nil)
	w.outside.hang = make(chan struct{})
	w.serve("198.51.100.9:80", echo)
	most := 0
	for i := range attempts {
		if err := w.raw.WriteFrame([][]byte{syn(uint16(i%60000+1024), netip.AddrFrom4([4]byte{198, 51, 100, byte(i % 7)}), uint16(i%50000+1))}); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			most = max(most, w.gateway.Stats().Open)
		}
	}
	until(t, "all were looked at", func() bool {
		s := w.gateway.Stats()
		most = max(most, s.Open)
		return s.Open == testLimits().Conns && s.Limited > int64(attempts)*9/10
	})
	if most > testLimits().Conns {
		t.Errorf("%d flows were open, more than %d", most, testLimits().Conns)
	}
	close(w.outside.hang)
	until(t, "they end", func() bool { return w.gateway.Stats().Open == 0 })
	until(t, "it serves, once it has refused the last of them", func() bool {
		c, err := w.dial("198.51.100.9:80")
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		roundTrip(t, c)
		return true
	})
}

// syn is a guest's frame that asks for a connection.
func syn(from uint16, to netip.Addr, port uint16) []byte {
	tcp := make([]byte, 20)
	header.TCP(tcp).Encode(&header.TCPFields{SrcPort: from, DstPort: port, SeqNum: 1, DataOffset: 20, Flags: header.TCPFlagSyn, WindowSize: 65535})
	return packet(to, header.TCPProtocolNumber, tcp, func(sum uint16) {
		header.TCP(tcp).SetChecksum(^header.TCP(tcp).CalculateChecksum(sum))
	})
}

// packet is a guest's frame with a payload whose checksum finish sets.
func packet(to netip.Addr, proto tcpip.TransportProtocolNumber, payload []byte, finish func(sum uint16)) []byte {
	l := testLink()
	src, dst := tcpip.AddrFrom4(l.Guest.As4()), tcpip.AddrFrom4(to.As4())
	if finish != nil {
		finish(header.PseudoHeaderChecksum(proto, src, dst, uint16(len(payload))))
	}
	b := make([]byte, header.EthernetMinimumSize+header.IPv4MinimumSize)
	header.Ethernet(b).Encode(&header.EthernetFields{SrcAddr: mac(l.GuestMAC), DstAddr: mac(l.GatewayMAC), Type: header.IPv4ProtocolNumber})
	ip := header.IPv4(b[header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(20 + len(payload)), TTL: 64, Protocol: uint8(proto), SrcAddr: src, DstAddr: dst})
	ip.SetChecksum(^ip.CalculateChecksum())
	return append(b, payload...)
}

// TestLink: what answers on the wire itself, and what is dropped and counted.
func TestLink(t *testing.T) {
	w := newWorld(t, open(), nil)
	heard := make(chan []byte, 64)
	// A guest of its own: the stack of the world's would answer by itself.
	_ = w.raw.Close()
	ours, theirs, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := wire.NewDatagram(theirs)
	if err != nil {
		t.Fatal(err)
	}
	other, err := wire.NewDatagram(ours)
	if err != nil {
		t.Fatal(err)
	}
	o := w.gateway.opts
	o.Wire = other
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- g.Run(t.Context()) }()
	go func() {
		defer close(heard)
		for {
			b := make([]byte, 2048)
			n, err := raw.ReadFrame(b)
			if err != nil {
				return
			}
			heard <- b[:n]
		}
	}()
	defer func() {
		g.stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = raw.Close()
	}()
	ping := func(to string) []byte {
		icmp := header.ICMPv4(make([]byte, 8))
		icmp.SetType(header.ICMPv4Echo)
		icmp.SetChecksum(header.ICMPv4Checksum(icmp, 0))
		return packet(netip.MustParseAddr(to), header.ICMPv4ProtocolNumber, icmp, nil)
	}
	send := func(f []byte) {
		if err := raw.WriteFrame([][]byte{f}); err != nil {
			t.Fatal(err)
		}
	}
	hears := func(what string, fits func([]byte) bool) {
		t.Helper()
		select {
		case f := <-heard:
			if !fits(f) {
				t.Errorf("%s: %x", what, f)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s: no answer", what)
		}
	}
	spoofed := syn(1, netip.MustParseAddr("198.51.100.1"), 80)
	spoofed[14+15]++
	for range 3 {
		send(ping("198.51.100.1"))
		send(spoofed)
		send([]byte{1, 2, 3})
		send(append(append(append([]byte{}, spoofed[:12]...), 0x86, 0xdd), make([]byte, 40)...))
	}
	send(ping("10.83.0.1"))
	hears("echo", func(f []byte) bool { return f[14+9] == 1 && f[34] == 0 })
	send(whoHas("10.83.0.1"))
	hears("arp", func(f []byte) bool { return f[21] == 2 && bytes.Equal(f[22:28], control.GatewayMAC()) })
	send(whoHas("10.83.0.3"))
	send(whoHas("198.51.100.1"))
	until(t, "it is all counted", func() bool {
		f := g.Stats().Frames
		return f["icmp"] == 3 && f["spoofed source"] == 3 && f["short"] == 3 && f["ipv6"] == 3 && f["arp"] == 2
	})
	select {
	case f := <-heard:
		t.Errorf("something that was to be dropped is answered: %x", f)
	default:
	}
}

// whoHas is a guest's question who has an address.
func whoHas(who string) []byte {
	l := testLink()
	b := make([]byte, 14, 42)
	header.Ethernet(b).Encode(&header.EthernetFields{SrcAddr: mac(l.GuestMAC), DstAddr: header.EthernetBroadcastAddress, Type: header.ARPProtocolNumber})
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(append(b, l.GuestMAC[:]...), l.Guest.AsSlice()...)
	return append(append(b, make([]byte, 6)...), netip.MustParseAddr(who).AsSlice()...)
}

// FuzzFrames: nothing that a guest can send ends the gateway.
func FuzzFrames(f *testing.F) {
	f.Add(syn(1, netip.MustParseAddr("198.51.100.1"), 80))
	f.Add(packet(netip.MustParseAddr("10.83.0.1"), header.UDPProtocolNumber, []byte{0, 1, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4}, nil))
	f.Add(whoHas("10.83.0.1"))
	l := &link{wire: nowhere{}, mtu: control.MTU, facts: testLink()}
	s, err := newStack(l)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.Destroy)
	f.Fuzz(func(_ *testing.T, b []byte) {
		l.deliver(b)
		// As if it had come through the check, with the addresses and sums that let it deeper in.
		if len(b) > 14+20 {
			g := testLink()
			copy(b[0:], g.GatewayMAC[:])
			copy(b[6:], g.GuestMAC[:])
			b[12], b[13], b[14] = 8, 0, 0x45
			copy(b[14+12:], g.Guest.AsSlice())
			binary.BigEndian.PutUint16(b[16:], uint16(len(b)-14))
			ip := header.IPv4(b[14:])
			ip.SetChecksum(0)
			ip.SetChecksum(^ip.CalculateChecksum())
			l.deliver(b)
		}
	})
}

type nowhere struct{}

func (nowhere) ReadFrame([]byte) (int, error) { return 0, io.EOF }
func (nowhere) WriteFrame([][]byte) error     { return nil }
func (nowhere) Close() error                  { return nil }

// TestEnd: the gateway's end resets what is open and leaves nothing.
func TestEnd(t *testing.T) {
	w := newWorld(t, open(), nil)
	w.serve("198.51.100.1:80", echo)
	c := w.mustDial("198.51.100.1:80")
	roundTrip(t, c)
	w.cancel()
	if err := <-w.ended; err != nil {
		t.Error(err)
	}
	w.ended <- nil
	if n := w.gateway.Stats().Open; n != 0 {
		t.Errorf("%d flows are open", n)
	}
}
