package gateway

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/gateway/dial"
	"github.com/smolvm/smolvm/internal/network/gateway/dns"
	"github.com/smolvm/smolvm/internal/network/gateway/frame"
	"github.com/smolvm/smolvm/internal/network/gateway/wire"
)

func testLink() frame.Link {
	return frame.Link{
		GuestMAC: [6]byte(control.GuestMAC()), GatewayMAC: [6]byte(control.GatewayMAC()), Guest: control.Guest().Addr(), Gateway: control.Gateway(),
	}
}

// world is a gateway with a guest at its wire and an outside that we made up.
type world struct {
	t       *testing.T
	gateway *Gateway
	guest   *stack.Stack
	raw     wire.Wire // the guest's end
	outside *outside
	ended   chan error
	cancel  context.CancelFunc

	mu      sync.Mutex
	records []api.NetRecord
}

// outside stands for everything beyond the gateway: addresses lead to listeners of ours, names to addresses.
type outside struct {
	policy func() *network.Policy
	mu     sync.Mutex
	hosts  map[string][]netip.Addr
	real   map[netip.AddrPort]string // where a listener of ours is
	hang   chan struct{}             // an address without a listener never answers while this is open
}

func (o *outside) Dial(ctx context.Context, f network.Flow) (*dial.Conn, error) {
	if f.Name != "" {
		found, err := o.LookupNetIP(ctx, "ip", f.Name+".")
		if err != nil {
			return nil, err
		}
		f.Addr = found[0]
	}
	v := o.policy().Flow(f)
	if !v.Allow {
		return nil, &dial.Denied{Verdict: v}
	}
	o.mu.Lock()
	to, ok := o.real[netip.AddrPortFrom(f.Addr, f.Port)]
	o.mu.Unlock()
	if !ok && o.hang != nil {
		select {
		case <-o.hang:
		case <-ctx.Done():
		}
	}
	if !ok {
		return nil, unix.ECONNREFUSED
	}
	proto := "tcp"
	if f.Proto == network.UDP {
		proto = "udp"
	}
	c, err := (&net.Dialer{}).DialContext(ctx, proto, to)
	if err != nil {
		return nil, err
	}
	return &dial.Conn{Conn: c, Addr: f.Addr, Verdict: v}, nil
}

func (o *outside) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if a, ok := o.hosts[host]; ok {
		return a, nil
	}
	return nil, &net.DNSError{Name: host, IsNotFound: true}
}

func (o *outside) LookupTXT(context.Context, string) ([]string, error) { return []string{"text"}, nil }

func (o *outside) LookupMX(context.Context, string) ([]*net.MX, error) {
	return []*net.MX{{Host: "mail.example.", Pref: 10}}, nil
}

func (o *outside) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	return "", []*net.SRV{{Target: "srv.example.", Port: 5060}}, nil
}

func (o *outside) LookupAddr(context.Context, string) ([]string, error) {
	return []string{"back.example."}, nil
}

var _ dns.Resolver = (*outside)(nil)

func testLimits() Limits { return Limits{Conns: 64, NewPerSec: 1 << 20, DNSPerSec: 1 << 20} }

func compile(t *testing.T, p api.NetworkPolicy) *network.Policy {
	t.Helper()
	c, err := network.Compile(p, network.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newWorld(t *testing.T, p api.NetworkPolicy, change func(*Options)) *world {
	t.Helper()
	ours, theirs, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, outside: &outside{hosts: map[string][]netip.Addr{}, real: map[netip.AddrPort]string{}}, ended: make(chan error, 1)}
	gw, err := wire.NewDatagram(ours)
	if err != nil {
		t.Fatal(err)
	}
	if w.raw, err = wire.NewDatagram(theirs); err != nil {
		t.Fatal(err)
	}
	o := Options{
		Wire: gw, Link: testLink(), MTU: control.MTU, Policy: compile(t, p), Limits: testLimits(), Names: network.NewSynthetic(nil),
		Dialer: w.outside, Resolver: w.outside, Log: slog.New(slog.DiscardHandler), Record: func(r api.NetRecord) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.records = append(w.records, r)
		},
	}
	if change != nil {
		change(&o)
	}
	if w.gateway, err = New(o); err != nil {
		t.Fatal(err)
	}
	w.outside.policy = w.gateway.policy.Load
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	go func() { w.ended <- w.gateway.Run(ctx) }()
	w.guest = w.newGuest()
	t.Cleanup(func() {
		cancel()
		_ = w.raw.Close()
		if err := <-w.ended; err != nil {
			t.Errorf("the gateway ended with %v", err)
		}
		w.guest.Destroy()
	})
	return w
}

// newGuest is a TCP/IP stack at the guest's end of the wire.
func (w *world) newGuest() *stack.Stack {
	w.t.Helper()
	f := testLink()
	l := &link{wire: w.raw, mtu: control.MTU, facts: frame.Link{GuestMAC: f.GatewayMAC, GatewayMAC: f.GuestMAC, Guest: f.Gateway, Gateway: f.Guest}}
	s, err := newStack(l)
	if err != nil {
		w.t.Fatal(err)
	}
	s.SetSpoofing(nicID, false)
	s.SetPromiscuousMode(nicID, false)
	s.SetRouteTable([]tcpip.Route{{Destination: defaultSubnet(), Gateway: tcpip.AddrFrom4(f.Gateway.As4()), NIC: nicID}})
	go func() {
		buf := make([]byte, 1<<17)
		for {
			n, err := w.raw.ReadFrame(buf)
			if err != nil {
				return
			}
			l.inject(buffer.NewViewWithData(buf[:n]))
		}
	}()
	return s
}

func full(at string) tcpip.FullAddress {
	a := netip.MustParseAddrPort(at)
	return tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFrom4(a.Addr().As4()), Port: a.Port()}
}

// dial connects from the guest.
func (w *world) dial(at string) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	return gonet.DialContextTCP(ctx, w.guest, full(at), ipv4.ProtocolNumber)
}

func (w *world) mustDial(at string) *gonet.TCPConn {
	w.t.Helper()
	c, err := w.dial(at)
	if err != nil {
		w.t.Fatalf("the guest dials %s: %v", at, err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (w *world) udp(at string) *gonet.UDPConn {
	w.t.Helper()
	to := full(at)
	c, err := gonet.DialUDP(w.guest, nil, &to, ipv4.ProtocolNumber)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// serve makes a listener that stands for addr, and handles its connections.
func (w *world) serve(addr string, handle func(net.Conn)) {
	w.t.Helper()
	l, err := (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	var wg sync.WaitGroup
	w.t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				handle(c)
			})
		}
	})
	w.outside.leads(addr, l.Addr().String())
}

func (o *outside) leads(addr, to string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.real[netip.MustParseAddrPort(addr)] = to
}

func (o *outside) has(name string, addrs ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hosts[name] = nil
	for _, a := range addrs {
		o.hosts[name] = append(o.hosts[name], netip.MustParseAddr(a))
	}
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// ask puts a question to the gateway's name server.
func (w *world) ask(name string, kind dnsmessage.Type) dnsmessage.Message {
	w.t.Helper()
	c := w.udp("10.83.0.1:53")
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(query(w.t, name, kind)); err != nil {
		w.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		w.t.Fatalf("no answer about %s: %v", name, err)
	}
	return unpack(w.t, buf[:n])
}

func query(t *testing.T, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unpack(t *testing.T, b []byte) dnsmessage.Message {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		t.Fatal(err)
	}
	return m
}

// found waits for a record that fits.
func (w *world) found(what string, fits func(api.NetRecord) bool) api.NetRecord {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		for _, r := range w.records {
			if fits(r) {
				w.mu.Unlock()
				return r
			}
		}
		all := len(w.records)
		w.mu.Unlock()
		if time.Now().After(end) {
			w.t.Fatalf("no record of %s among %d", what, all)
		}
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out: %s", what)
		}
	}
}
