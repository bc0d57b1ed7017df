package gateway

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network/gateway/questions"
)

// TestClock: how long a flow is silent is counted by a clock of its own, which the host's being set does not move.
func TestClock(t *testing.T) {
	w := newWorld(t, open(), func(o *Options) { o.IdleTCP = time.Hour })
	w.serve("198.51.100.1:80", echo)
	c := w.mustDial("198.51.100.1:80")
	roundTrip(t, c)
	flows := w.gateway.flows.open()
	if len(flows) != 1 {
		t.Fatalf("%d flows", len(flows))
	}
	f, now := flows[0], w.gateway.flows.clock()
	if now < 0 || now > time.Hour {
		t.Errorf("the clock begins at %s: it is not one of its own", now)
	}
	if last := time.Duration(f.last.Load()); last < 0 || last > now {
		t.Errorf("it moved bytes at %s, and it is %s", last, now)
	}
	endIdle(flows, now+59*time.Minute)
	roundTrip(t, c)
	endIdle(flows, w.gateway.flows.clock()+61*time.Minute)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("an hour of silence did not end it")
	}
	r := w.found("its end", func(r api.NetRecord) bool { return r.Kind == "tcp" })
	if r.DurationMs < 0 || r.DurationMs > 60_000 || r.Reason != "idle" {
		t.Errorf("%+v", r)
	}
}

// garbage is a frame that a hostile guest may send; most kinds get past the first look.
func garbage(kind int) []byte {
	to := netip.AddrFrom4([4]byte{198, 51, 100, byte(rand.N(250))})
	payload := make([]byte, 8+rand.N(1400))
	for i := range payload {
		payload[i] = byte(rand.N(256))
	}
	switch kind % 6 {
	case 0: // anything
		return payload
	case 1: // a first fragment whose others never come
		f := packet(to, header.UDPProtocolNumber, make([]byte, 8+8*rand.N(8000)), nil)
		ip := header.IPv4(f[header.EthernetMinimumSize:])
		binary.BigEndian.PutUint16(ip[4:], uint16(rand.N(1<<16)))
		ip.SetFlagsFragmentOffset(header.IPv4FlagMoreFragments, 0)
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
		return f
	case 2:
		return packet(to, header.TCPProtocolNumber, payload, nil)
	case 3:
		return packet(netip.MustParseAddr("10.83.0.1"), header.UDPProtocolNumber, append([]byte{1, 2, 0, 53, 0, 16, 0, 0}, payload[:8]...), nil)
	case 4:
		return whoHas("10.83.0.1")
	default:
		return syn(uint16(rand.N(1<<16)), to, uint16(rand.N(1<<16)))
	}
}

// TestFrameFlood: a guest that sends garbage as fast as it can fills no memory, holds up no other guest's gateway, and is
// served when it stops.
func TestFrameFlood(t *testing.T) {
	limits := func(o *Options) { o.Limits = Limits{Conns: 256, NewPerSec: 2000, DNSPerSec: 500} }
	hostile, other := newWorld(t, open(), limits), newWorld(t, open(), limits)
	for _, w := range []*world{hostile, other} {
		w.serve("198.51.100.1:80", echo)
	}
	roundTrip(t, hostile.mustDial("198.51.100.1:80"))
	before := heap()
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for range 2 {
		senders.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if hostile.raw.WriteFrame([][]byte{garbage(i)}) != nil {
					return
				}
			}
		})
	}
	most := uint64(0)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		begin := time.Now()
		c := other.mustDial("198.51.100.1:80")
		roundTrip(t, c)
		_ = c.Close()
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("another guest's connection took %s", took)
		}
		most = max(most, heap())
	}
	close(stop)
	senders.Wait()
	if grown := int64(most) - int64(before); grown > 96<<20 { //nolint:gosec // far below
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	s := hostile.gateway.Stats()
	if s.Open > 256 || s.Frames["foreign card"]+s.Frames["short"] == 0 {
		t.Errorf("%+v", s)
	}
	until(t, "the guest is served again", func() bool {
		c, err := hostile.dial("198.51.100.1:80")
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		roundTrip(t, c)
		return true
	})
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// slowResolver answers nothing until it is let go.
type slowResolver struct {
	*outside
	mu sync.Mutex
	up chan struct{}
}

func (s *slowResolver) LookupNetIP(ctx context.Context, kind, host string) ([]netip.Addr, error) {
	s.mu.Lock()
	up := s.up
	s.mu.Unlock()
	select {
	case <-up:
		return s.outside.LookupNetIP(ctx, kind, host)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestResolverDown: a resolver that does not answer holds up what needs it, and nothing else; the questions under way are
// bounded, and the rest is answered at once.
func TestResolverDown(t *testing.T) {
	r := &slowResolver{up: make(chan struct{})}
	w := newWorld(t, open(), func(o *Options) { o.Resolver = r })
	r.outside = w.outside
	w.outside.has("a.example.", "198.51.100.1")
	w.serve("198.51.100.1:80", echo)
	live := w.mustDial("198.51.100.1:80")
	c := w.udp("10.83.0.1:53")
	for range questions.MaxAsking {
		if _, err := c.Write(query(t, "a.example.", dnsmessage.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "all places are taken", func() bool { return w.gateway.names.Asking() == questions.MaxAsking })
	begin := time.Now()
	if m := w.ask("a.example.", dnsmessage.TypeA); m.RCode == dnsmessage.RCodeSuccess {
		t.Errorf("one too many is answered with %v", m)
	}
	roundTrip(t, live)
	fresh := w.mustDial("198.51.100.1:80")
	roundTrip(t, fresh)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("without a resolver, what needs none took %s", took)
	}
	close(r.up)
	until(t, "it is back", func() bool { return w.gateway.names.Asking() == 0 })
	if m := w.ask("a.example.", dnsmessage.TypeA); len(m.Answers) != 1 {
		t.Errorf("it is back, and the answer is %v", m)
	}
}

// TestResolverDownAllow: with rules, names are told without any resolver; what dials by name is refused when it cannot be found.
func TestResolverDownAllow(t *testing.T) {
	w := newWorld(t, api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{{Action: api.RuleAllow, Host: "a.example"}}}, nil)
	m := w.ask("a.example.", dnsmessage.TypeA) // nobody knows it
	if len(m.Answers) != 1 {
		t.Fatalf("%v", m)
	}
	at := netip.AddrFrom4(m.Answers[0].Body.(*dnsmessage.AResource).A)
	if c, err := w.dial(netip.AddrPortFrom(at, 8080).String()); err == nil {
		_ = c.Close()
		t.Error("a name that nobody knows is connected")
	}
	r := w.found("the failure", func(r api.NetRecord) bool { return r.Kind == "tcp" })
	if r.Name != "a.example" || r.Reason == "" {
		t.Errorf("%+v", r)
	}
}

// TestSlowGuest: a guest that sends a byte now and then, and one that begins questions and never ends them, hold up nobody
// else and hold no more than their places.
func TestSlowGuest(t *testing.T) {
	w := newWorld(t, open(), nil)
	got := make(chan int, 1)
	w.serve("198.51.100.1:80", func(c net.Conn) {
		b, _ := io.ReadAll(c)
		got <- len(b)
	})
	w.serve("198.51.100.2:80", echo)
	drip := w.mustDial("198.51.100.1:80")
	var half []net.Conn
	for range questions.MaxConns + 8 {
		c := w.mustDial("10.83.0.1:53")
		_, _ = c.Write([]byte{0, 40, 1}) // 39 more never come
		half = append(half, c)
	}
	begin := time.Now()
	for range 30 {
		if _, err := drip.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		c := w.mustDial("198.51.100.2:80")
		roundTrip(t, c)
		_ = c.Close()
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("beside slow ones it took %s", took)
	}
	w.outside.has("a.example.", "198.51.100.1")
	if m := w.ask("a.example.", dnsmessage.TypeA); len(m.Answers) != 1 {
		t.Errorf("names over UDP beside half questions over TCP: %v", m)
	}
	_ = drip.CloseWrite()
	if n := <-got; n != 30 {
		t.Errorf("%d bytes came", n)
	}
	for _, c := range half {
		_ = c.Close()
	}
	until(t, "one more question over TCP", func() bool {
		c, err := w.dial("10.83.0.1:53")
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		q := query(t, "a.example.", dnsmessage.TypeA)
		_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...))
		_, err = io.ReadFull(c, make([]byte, 2))
		return err == nil
	})
}

// TestSilentOutside: one that takes the connection and never says a word, or never takes it, is given up with the policy's
// change and with the gateway's end, and holds up nobody.
func TestSilentOutside(t *testing.T) {
	w := newWorld(t, open(), nil)
	w.outside.hang = make(chan struct{})
	stop := make(chan struct{})
	w.serve("198.51.100.1:80", func(net.Conn) { <-stop })
	w.serve("198.51.100.2:80", echo)
	silent := w.mustDial("198.51.100.1:80")
	if err := w.raw.WriteFrame([][]byte{syn(5000, netip.MustParseAddr("198.51.100.99"), 80)}); err != nil {
		t.Fatal(err)
	}
	until(t, "both are open", func() bool { return w.gateway.Stats().Open == 2 })
	roundTrip(t, w.mustDial("198.51.100.2:80"))
	w.gateway.SetPolicy(compile(t, api.NetworkPolicy{Mode: api.NetNone}), testLimits())
	_ = silent.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("it is still open")
	}
	until(t, "they end", func() bool { return w.gateway.Stats().Open == 0 })
	close(stop)
}
