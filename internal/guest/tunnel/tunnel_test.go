package tunnel

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// side is one end of a tunnel and how it fared.
type side struct {
	conn           *net.TCPConn
	received, sent atomic.Int64
	done           chan error
}

func (s *side) seen(received, sent int) {
	s.received.Add(int64(received))
	s.sent.Add(int64(sent))
}

// reset ends a connection as one that broke.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// pair is a TCP connection over the loopback.
func pair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if a, err = net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr)); err == nil {
		b, err = l.AcceptTCP()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

// tunnel is a client and a server with a tunnel between them, as a host and a guest have it.
func tunnel(t testing.TB) (client, server *net.TCPConn, host, guest *side) {
	t.Helper()
	client, h := pair(t)
	server, g := pair(t)
	host, guest = &side{conn: h, done: make(chan error, 1)}, &side{conn: g, done: make(chan error, 1)}
	upR, upW := io.Pipe()
	downR, downW := io.Pipe()
	end := func(s *side, r *io.PipeReader, w *io.PipeWriter, f func(abort func()) error) {
		err := f(func() {
			reset(s.conn)
			_ = r.CloseWithError(errors.New("aborted"))
			_ = w.CloseWithError(errors.New("aborted"))
		})
		if err == nil {
			_ = s.conn.Close()
		}
		_ = w.CloseWithError(err)
		s.done <- err
		_ = r.Close()
	}
	go end(host, downR, upW, func(abort func()) error { return Join(host.conn, downR, upW, abort, host.seen) })
	go end(guest, upR, downW, func(abort func()) error {
		read, err := run(guest.conn, upR, downW, abort, guest.seen)
		<-read
		return err
	})
	return client, server, host, guest
}

func ends(t testing.TB, s *side, wrong bool) {
	t.Helper()
	select {
	case err := <-s.done:
		if (err != nil) != wrong {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it did not end")
	}
}

// TestBothWays: everything arrives, each direction ends for itself, and the bytes are counted.
func TestBothWays(t *testing.T) {
	client, server, host, guest := tunnel(t)
	question, answer := make([]byte, 3<<20+17), make([]byte, 2<<20+5)
	_, _ = rand.Read(question)
	_, _ = rand.Read(answer)
	var all sync.WaitGroup
	all.Go(func() {
		_, _ = client.Write(question)
		_ = client.CloseWrite()
		if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, answer) {
			t.Errorf("the client got %d bytes, %v", len(got), err)
		}
	})
	all.Go(func() {
		if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, question) { // the end comes although we have not ended
			t.Errorf("the server got %d bytes, %v", len(got), err)
		}
		_, _ = server.Write(answer)
		_ = server.CloseWrite()
	})
	all.Wait()
	ends(t, host, false)
	ends(t, guest, false)
	if host.sent.Load() != int64(len(question)) || host.received.Load() != int64(len(answer)) || guest.received.Load() != int64(len(question)) {
		t.Errorf("counted %d and %d", host.sent.Load(), host.received.Load())
	}
}

// TestServerEndsFirst: a server that has said everything still listens.
func TestServerEndsFirst(t *testing.T) {
	client, server, host, guest := tunnel(t)
	_, _ = io.WriteString(server, "bye")
	_ = server.CloseWrite()
	if got, err := io.ReadAll(client); err != nil || string(got) != "bye" {
		t.Fatalf("%q, %v", got, err)
	}
	_, _ = io.WriteString(client, "and thanks")
	_ = client.CloseWrite()
	if got, err := io.ReadAll(server); err != nil || string(got) != "and thanks" {
		t.Fatalf("%q, %v", got, err)
	}
	ends(t, host, false)
	ends(t, guest, false)
}

// TestReset: a break is one at the other side too, whoever breaks.
func TestReset(t *testing.T) {
	for _, who := range []string{"client", "server"} {
		t.Run(who, func(t *testing.T) {
			client, server, host, guest := tunnel(t)
			breaks, other := client, server
			if who == "server" {
				breaks, other = server, client
			}
			_, _ = io.WriteString(breaks, "last words")
			b := make([]byte, 10)
			if _, err := io.ReadFull(other, b); err != nil {
				t.Fatal(err)
			}
			reset(breaks)
			_ = other.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := other.Read(b); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the other side sees %v", err)
			}
			ends(t, host, true)
			ends(t, guest, true)
		})
	}
}

// TestRefusalArrives: what a server says before it breaks off arrives, although it did not read all.
func TestRefusalArrives(t *testing.T) {
	client, server, host, guest := tunnel(t)
	go func() { _, _ = client.Write(make([]byte, 8<<20)) }()
	if _, err := io.ReadFull(server, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(server, "413 too large")
	_ = server.Close() // with bytes unread: the kernel sends a reset
	b := make([]byte, 13)
	_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(client, b); err != nil || string(b) != "413 too large" {
		t.Errorf("%q, %v", b, err)
	}
	ends(t, host, true)
	ends(t, guest, true)
}

// TestSlowReader: what nobody reads is bounded, on both ways, and goes on when he reads.
func TestSlowReader(t *testing.T) {
	client, server, host, guest := tunnel(t)
	for _, c := range []*net.TCPConn{client, server, host.conn, guest.conn} {
		_ = c.SetReadBuffer(16 << 10)
		_ = c.SetWriteBuffer(16 << 10)
	}
	const size = 8 << 20
	go func() { _, _ = client.Write(make([]byte, size)) }()
	time.Sleep(300 * time.Millisecond)
	if n := host.sent.Load() - guest.received.Load(); n > Window {
		t.Errorf("%d bytes are under way", n)
	}
	if n := host.sent.Load(); n > size/2 {
		t.Errorf("%d bytes went through although nobody reads", n)
	}
	go func() { _, _ = io.WriteString(server, "still here") }() // the other direction is not held up
	b := make([]byte, 10)
	if _, err := io.ReadFull(client, b); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	reset(client)
	ends(t, host, true)
	ends(t, guest, true)
}

// TestGoneUnread: a client that is gone while nobody reads it is noticed, although the server does not move.
func TestGoneUnread(t *testing.T) {
	t.Run("stuffed", func(t *testing.T) {
		client, server, host, guest := tunnel(t)
		_ = server.SetReadBuffer(16 << 10)
		_ = guest.conn.SetWriteBuffer(16 << 10)
		_ = client.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		_, _ = client.Write(make([]byte, 32<<20))
		reset(client)
		ends(t, host, true)
		ends(t, guest, true)
	})
	t.Run("ended", func(t *testing.T) {
		client, server, host, guest := tunnel(t)
		_ = client.CloseWrite()
		if _, err := server.Read(make([]byte, 1)); err != io.EOF { //nolint:errorlint // a connection's own
			t.Fatal(err)
		}
		reset(client)
		ends(t, host, true)
		ends(t, guest, true)
	})
	t.Run("slow but there", func(t *testing.T) {
		client, server, host, guest := tunnel(t)
		_ = client.CloseWrite()
		const size = 4 << 20
		go func() {
			_, _ = server.Write(make([]byte, size))
			_ = server.Close() // long before all has arrived
		}()
		time.Sleep(patience + 300*time.Millisecond)
		if n, err := io.Copy(io.Discard, client); err != nil || n != size {
			t.Errorf("%d bytes, %v", n, err)
		}
		ends(t, host, false)
		ends(t, guest, false)
	})
}

// TestHostileFrames: an end that does not hold the rules is cut off, and what it sends is not kept.
func TestHostileFrames(t *testing.T) {
	data := func(n int) string {
		return string([]byte{'d', byte(n >> 16), byte(n >> 8), byte(n)}) + strings.Repeat("x", n)
	}
	for name, frames := range map[string]string{
		"unknown":         "z\x00\x00\x01x",
		"too long":        "d\xff\xff\xff",
		"empty":           "d\x00\x00\x00",
		"ack of nothing":  "a\x00\x00\x01",
		"end with length": "e\x00\x00\x01",
		"after the end":   "e\x00\x00\x00" + data(1),
		"two ends":        "e\x00\x00\x00e\x00\x00\x00",
		"cut header":      "d\x00",
		"cut data":        "d\x00\x00\x05abc",
		"cut stream":      data(3),
		"ends too early":  "e\x00\x00\x00",
		"over the window": strings.Repeat(data(chunk), 400), // the client does not read
	} {
		t.Run(name, func(t *testing.T) {
			client, h := pair(t)
			_ = client.SetReadBuffer(16 << 10)
			_ = h.SetWriteBuffer(16 << 10)
			s := &side{conn: h, done: make(chan error, 1)}
			r := io.NopCloser(strings.NewReader(frames))
			go func() { s.done <- Join(h, r, io.Discard, func() { reset(h) }, s.seen) }()
			ends(t, s, true)
		})
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("d\x00\x00\x03abca\x00\x00\x01e\x00\x00\x00"))
	f.Add([]byte("e\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, frames []byte) {
		s := &memory{closed: make(chan struct{})}
		var got int
		err := Join(s, bytes.NewReader(frames), io.Discard, func() { s.once.Do(func() { close(s.closed) }) }, func(received, _ int) { got += received })
		if got > len(frames) || got != s.written.Len() {
			t.Errorf("%d of %d bytes, %v", got, len(frames), err)
		}
	})
}

// memory is a connection that brings nothing until it is closed.
type memory struct {
	written bytes.Buffer
	once    sync.Once
	closed  chan struct{}
}

func (m *memory) Read([]byte) (int, error) { <-m.closed; return 0, os.ErrClosed }
func (m *memory) Write(p []byte) (int, error) {
	return m.written.Write(p)
}
func (*memory) CloseWrite() error { return nil }
