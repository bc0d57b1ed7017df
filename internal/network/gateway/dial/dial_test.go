package dial

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answers is a resolver that tells each time the next of a name's addresses, as one that rebinds does.
type answers map[string][]string

func (a answers) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	all := a[host]
	if len(all) == 0 {
		return nil, &net.DNSError{Name: host, IsNotFound: true}
	}
	if len(all) > 1 {
		a[host] = all[1:]
	}
	var out []netip.Addr
	for s := range strings.SplitSeq(all[0], " ") {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, nil
}

func dialer(t *testing.T, p api.NetworkPolicy, names answers, proxy *Proxy) *Dialer {
	t.Helper()
	c, err := network.Compile(p, network.Options{HostAddrs: []netip.Addr{netip.MustParseAddr("203.0.113.5")}})
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{
		Policy: func() *network.Policy { return c }, Resolver: func() Resolver { return names }, Proxy: proxy, Timeout: 500 * time.Millisecond,
	})
}

func listen(t *testing.T, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handle(c)
			_ = c.Close()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// TestClosed: whatever way leads to a closed address, it is refused before a packet leaves.
func TestClosed(t *testing.T) {
	at := listen(t, func(c net.Conn) { t.Errorf("somebody came: %s", c.RemoteAddr()) })
	names := answers{
		"rebind.example.": {"127.0.0.1"}, "mixed.example.": {"127.0.0.1 10.0.0.1 169.254.169.254"}, "mapped.example.": {"::ffff:127.0.0.1 ::1"},
		"nat64.example.": {"64:ff9b::7f00:1"}, "own.example.": {"203.0.113.5"}, "zone.example.": {"fe80::1%lo"},
		network.HostName + ".": {"198.51.100.1"},
	}
	for _, f := range []network.Flow{
		{Addr: netip.MustParseAddr("127.0.0.1")},
		{Addr: netip.MustParseAddr("::ffff:127.0.0.1")},
		{Addr: netip.MustParseAddr("203.0.113.5")},
		{Name: "rebind.example"},
		{Name: "mixed.example"},
		{Name: "mapped.example"},
		{Name: "nat64.example"},
		{Name: "own.example"},
		{Name: "zone.example"},
		{Name: network.HostName},
	} {
		for _, proto := range []network.Proto{network.TCP, network.UDP} {
			f.Proto, f.Port = proto, at.Port()
			c, err := dialer(t, api.NetworkPolicy{}, names, nil).Dial(t.Context(), f)
			var denied *Denied
			if err == nil {
				_ = c.Close()
			}
			if !errors.As(err, &denied) || denied.Verdict.Reason == "" {
				t.Errorf("%+v: %v", f, err)
			}
		}
	}
}

// TestControl: the address that is about to be dialled is looked at, whatever was looked at before.
func TestControl(t *testing.T) {
	at := listen(t, func(c net.Conn) { t.Errorf("somebody came: %s", c.RemoteAddr()) })
	d := dialer(t, api.NetworkPolicy{}, nil, nil)
	_, err := d.connect(t.Context(), network.Flow{Addr: at.Addr(), Port: at.Port()}, func(a netip.Addr) network.Verdict {
		return d.opts.Policy().Flow(network.Flow{Addr: a, Port: at.Port()})
	})
	if _, ok := errors.AsType[*Denied](err); !ok {
		t.Errorf("%v", err)
	}
}

// TestHost: the host's loopback is reached by its name, where a rule opens the port, and only that port.
func TestHost(t *testing.T) {
	at := listen(t, func(c net.Conn) { _, _ = io.WriteString(c, "host") })
	port := at.String()[strings.LastIndex(at.String(), ":")+1:]
	d := dialer(t, api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{
		{Action: api.RuleAllow, Host: network.HostName, Ports: []string{port}},
	}}, nil, nil)
	c, err := d.Dial(t.Context(), network.Flow{Name: network.HostName, Port: at.Port()})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(c)
	_ = c.Close()
	if string(b) != "host" {
		t.Errorf("%q", b)
	}
	if _, err := d.Dial(t.Context(), network.Flow{Name: network.HostName, Port: at.Port() ^ 1}); err == nil {
		t.Error("another port is open")
	}
}

// TestProxy: where the host has a proxy the name goes to it, after the policy's look at the name.
func TestProxy(t *testing.T) {
	asked := make(chan *http.Request, 8)
	at := listen(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		asked <- req
		if strings.HasPrefix(req.Host, "refused.") {
			_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nfirst bytes")
	})
	proxy := &Proxy{find: func(u *url.URL) (*url.URL, error) {
		if u.Hostname() == "direct.example" {
			return nil, nil //nolint:nilnil // http.Transport's own convention
		}
		return &url.URL{Scheme: "http", Host: at.String(), User: url.UserPassword("u", "p")}, nil
	}}
	names := answers{
		"inside.example.": {"10.0.0.1"}, "direct.example.": {"10.0.0.1"}, "mixed.example.": {"198.51.100.1 10.0.0.1"},
		"many.example.": {strings.Repeat("198.51.100.1 ", 9) + "169.254.169.254"},
	}
	d := dialer(t, api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{{Action: api.RuleAllow, Host: "*.example", Ports: []string{"443"}}}}, names, proxy)

	c, err := d.Dial(t.Context(), network.Flow{Name: "far.example", Port: 443})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(c)
	_ = c.Close()
	req := <-asked
	if string(b) != "first bytes" || req.Method != http.MethodConnect || req.Host != "far.example:443" || req.Header.Get("Proxy-Authorization") == "" {
		t.Errorf("%q after %s %s %v", b, req.Method, req.Host, req.Header)
	}
	if _, err := d.Dial(t.Context(), network.Flow{Name: "refused.example", Port: 443}); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("a refusal: %v", err)
	}
	<-asked
	for _, f := range []network.Flow{
		{Name: "far.example", Port: 80},
		{Name: "far.other", Port: 443},
		{Name: "inside.example", Port: 443},
		{Name: "mixed.example", Port: 443},
		{Name: "many.example", Port: 443},
		{Name: "direct.example", Port: 443},
		{Addr: netip.MustParseAddr("10.0.0.1"), Port: 443},
		{Name: "far.example", Port: 443, Proto: network.UDP},
	} {
		if _, err := d.Dial(t.Context(), f); err == nil {
			t.Errorf("%+v is let through", f)
		}
	}
	select {
	case req := <-asked:
		t.Errorf("the proxy was asked for %s", req.Host)
	default:
	}
}

// TestNoAnswer: an outside that never answers a handshake, and a resolver that never answers, are given up in time, also when
// the guest gives up first.
func TestNoAnswer(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(sa.(*unix.SockaddrInet4).Port) //nolint:gosec // it is one
	// Nobody accepts: once the queue is full, handshakes are not answered.
	for range 4 {
		if c, err := (&net.Dialer{Timeout: 200 * time.Millisecond}).DialContext(t.Context(), "tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port).String()); err == nil {
			defer func() { _ = c.Close() }()
		}
	}
	d := dialer(t, api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{
		{Action: api.RuleAllow, Host: network.HostName, Ports: []string{strconv.Itoa(int(port))}}, {Action: api.RuleAllow, Host: "a.example"},
	}}, nil, nil)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for _, tt := range []struct {
		what string
		ctx  context.Context //nolint:containedctx // of a test
		f    network.Flow
	}{
		{"no handshake", t.Context(), network.Flow{Name: network.HostName, Port: port}},
		{"the guest gives up", short, network.Flow{Name: network.HostName, Port: port}},
		{"no resolver", t.Context(), network.Flow{Name: "a.example", Port: 80}},
	} {
		if tt.what == "no resolver" {
			d.opts.Resolver = func() Resolver { return silent{} }
		}
		begin := time.Now()
		c, err := d.Dial(tt.ctx, tt.f)
		if err == nil {
			_ = c.Close()
		}
		if took := time.Since(begin); err == nil || took > 3*time.Second {
			t.Errorf("%s: %v after %s", tt.what, err, took)
		}
	}
}

// silent is a resolver that never answers.
type silent struct{}

func (silent) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
