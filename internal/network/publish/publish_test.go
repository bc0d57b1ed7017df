package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// guest is what a Set's connections reach: it echoes.
type guest struct {
	mu      sync.Mutex
	records []api.NetRecord
	crowds  atomic.Int32
	active  atomic.Int32
	hold    chan struct{} // connections wait for it; nil: they do not
	now     atomic.Int32  // connections
	most    atomic.Int32
}

func (g *guest) forward(ctx context.Context, port int, conn *net.TCPConn, seen func(in, out int)) error {
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if port == 404 {
		_ = conn.SetLinger(0)
		return errors.New("nothing listens")
	}
	for n := g.now.Add(1); ; {
		most := g.most.Load()
		if n <= most || g.most.CompareAndSwap(most, n) {
			break
		}
	}
	defer g.now.Add(-1)
	if g.hold != nil {
		select {
		case <-g.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b := make([]byte, 1024)
	for {
		n, err := conn.Read(b)
		if n > 0 {
			_, _ = conn.Write(b[:n])
			seen(n, n)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (g *guest) set(t *testing.T) *Set {
	t.Helper()
	s := New(Options{
		Forward: g.forward, Active: func() { g.active.Add(1) }, Crowded: func(int) { g.crowds.Add(1) },
		Record: func(r api.NetRecord) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.records = append(g.records, r)
		},
		Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(s.Close)
	return s
}

func port(t testing.TB, text string) api.Port {
	t.Helper()
	p, err := api.ParsePort(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func keep([]api.Port) error { return nil }

func dial(t *testing.T, p api.Port) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.Host())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func echoes(t *testing.T, c net.Conn) {
	t.Helper()
	b := make([]byte, 5)
	_, err := io.WriteString(c, "hello")
	if err == nil {
		_, err = io.ReadFull(c, b)
	}
	if err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestSet(t *testing.T) {
	g := &guest{}
	s := g.set(t)
	l, first, err := Listen(t.Context(), port(t, "80"))
	if err != nil || first.HostPort == 0 || !first.Any || first.Address != "127.0.0.1" {
		t.Fatalf("%+v, %v", first, err)
	}
	s.Adopt(l, first)
	early := dial(t, first) // before the VM runs
	s.Serve(t.Context())
	echoes(t, early)
	second, err := s.Add(t.Context(), port(t, "81"), func(ports []api.Port) error {
		if len(ports) != 2 || ports[0] != first {
			t.Errorf("kept: %v", ports)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	open := dial(t, second)
	echoes(t, open)
	if got := s.Ports(); !slices.Equal(got, []api.Port{first, second}) {
		t.Errorf("%v", got)
	}
	if _, err := s.Remove(port(t, "81"), func(ports []api.Port) error {
		if !slices.Equal(ports, []api.Port{first}) {
			t.Errorf("kept: %v", ports)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := open.Read(make([]byte, 1)); err == nil {
		t.Error("a connection to a port that was removed goes on")
	}
	if c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", second.Host()); err == nil {
		_ = c.Close()
		t.Error("a port that was removed is there")
	}
	echoes(t, early) // the other one is not touched
	s.Close()
	if _, err := early.Read(make([]byte, 1)); err == nil {
		t.Error("a connection goes on after the end")
	}
	if _, err := s.Add(t.Context(), port(t, "82"), keep); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("after the end: %v", err)
	}
	slices.SortFunc(g.records, func(a, b api.NetRecord) int { return b.Port - a.Port }) // each is written when its connection has ended
	if len(g.records) != 2 || g.records[0].Port != 81 || g.records[1].BytesIn != 10 || g.records[1].BytesOut != 10 || g.records[1].Addr != "127.0.0.1" ||
		g.records[1].Kind != "port" || g.records[1].Verdict != "allow" {
		t.Errorf("%+v", g.records)
	}
	if g.active.Load() < 5 {
		t.Errorf("active %d times", g.active.Load())
	}
}

// TestTaken: a port that is taken is an error that names it, and nothing changes.
func TestTaken(t *testing.T) {
	s := (&guest{}).set(t)
	s.Serve(t.Context())
	other, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	number := other.Addr().(*net.TCPAddr).Port
	never := func([]api.Port) error { t.Error("it was kept"); return nil }
	_, err = s.Add(t.Context(), port(t, fmt.Sprintf("%d:80", number)), never)
	if !errdefs.Is(err, errdefs.AlreadyExists) || !strings.Contains(err.Error(), fmt.Sprint(number)) || errdefs.RemedyOf(err) == "" {
		t.Errorf("%v", err)
	}
	// One that may be any becomes another one.
	p := port(t, "80")
	p.HostPort = number
	if p, err = s.Add(t.Context(), p, keep); err != nil || p.HostPort == number || p.HostPort == 0 || !p.Any {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := s.Add(t.Context(), port(t, fmt.Sprintf("%d:81", p.HostPort)), never); !errdefs.Is(err, errdefs.AlreadyExists) {
		t.Errorf("our own: %v", err)
	}
	if _, err := s.Add(t.Context(), port(t, "203.0.113.1:0:80"), never); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("another host's address: %v", err)
	}
	if os.Geteuid() != 0 {
		if _, err := s.Add(t.Context(), port(t, "7:80"), never); !errdefs.Is(err, errdefs.Denied) {
			t.Errorf("a port of the administrator: %v", err)
		}
	}
	full := errors.New("full")
	if _, err := s.Add(t.Context(), port(t, "80"), func([]api.Port) error { return full }); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	if got := s.Ports(); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if _, err := s.Remove(port(t, "80"), func([]api.Port) error { return full }); !errors.Is(err, full) || len(s.Ports()) != 1 {
		t.Errorf("%v, %v", err, s.Ports())
	}
	if _, err := s.Remove(port(t, "99"), never); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("%v", err)
	}
}

func TestIPv6(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp6", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	_ = l.Close()
	s := (&guest{}).set(t)
	s.Serve(t.Context())
	p, err := s.Add(t.Context(), port(t, "[::1]:0:80"), keep)
	if err != nil {
		t.Fatal(err)
	}
	echoes(t, dial(t, p))
	// The families are apart.
	all, err := s.Add(t.Context(), port(t, "[::]:0:80"), keep)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(t.Context(), port(t, fmt.Sprintf("0.0.0.0:%d:80", all.HostPort)), keep); err != nil {
		t.Error(err)
	}
}

// TestCrowd: more than so many connections wait, and are served later. Those that hold are told of once.
func TestCrowd(t *testing.T) {
	g := &guest{hold: make(chan struct{})}
	s := g.set(t)
	s.Serve(t.Context())
	p, err := s.Add(t.Context(), port(t, "80"), keep)
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for range MaxConns + 20 {
		conns = append(conns, dial(t, p))
	}
	for end := time.Now().Add(10 * time.Second); g.crowds.Load() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n := g.now.Load(); n > MaxConns || g.crowds.Load() != 1 {
		t.Errorf("%d connections, told %d times", n, g.crowds.Load())
	}
	close(g.hold)
	for _, c := range conns {
		echoes(t, c)
		_ = c.Close()
	}
	if n := g.most.Load(); n > MaxConns {
		t.Errorf("%d connections at once", n)
	}
}

// TestCloseWhileCrowded: what waits does not hold up the end.
func TestCloseWhileCrowded(t *testing.T) {
	g := &guest{hold: make(chan struct{})}
	s := g.set(t)
	s.Serve(t.Context())
	p, err := s.Add(t.Context(), port(t, "80"), keep)
	if err != nil {
		t.Fatal(err)
	}
	for range MaxConns + 5 {
		dial(t, p)
	}
	done := make(chan struct{})
	go func() { s.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
	if g.now.Load() != 0 {
		t.Errorf("%d connections are left", g.now.Load())
	}
}

func TestRefusedByGuest(t *testing.T) {
	g := &guest{}
	s := g.set(t)
	s.Serve(t.Context())
	p, err := s.Add(t.Context(), port(t, "404"), keep)
	if err != nil {
		t.Fatal(err)
	}
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.Host())
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
	s.Close()
	if len(g.records) != 1 || g.records[0].Reason != "nothing listens" {
		t.Errorf("%+v", g.records)
	}
}
