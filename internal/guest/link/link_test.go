package link

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// pair returns both ends of a stream socket pair, which buffers as a port does.
func pair(t *testing.T) (host, guest net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		t.Cleanup(func() { _ = ends[i].Close() })
	}
	return ends[0], ends[1]
}

// keep is a channel whose host end outlives the connections on it.
type keep struct{ net.Conn }

func (k keep) Close() error { return k.SetDeadline(time.Time{}) }

func dial(t *testing.T, conn net.Conn) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := Dial(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// connect dials and accepts.
func connect(t *testing.T, conn net.Conn, l *Listener) (host, guest net.Conn) {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	return dial(t, conn), <-accepted
}

// echo serves every connection of l.
func echo(l *Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			_ = c.Close()
		}()
	}
}

func roundTrip(t *testing.T, c net.Conn, n int) {
	t.Helper()
	msg := make([]byte, n)
	_, _ = rand.Read(msg)
	go func() { _, _ = c.Write(msg) }()
	got := make([]byte, n)
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, msg) {
		t.Fatalf("%d bytes did not come back: %v", n, err)
	}
}

func TestEcho(t *testing.T) {
	host, guest := pair(t)
	l := Listen(guest)
	go echo(l)
	c := dial(t, host)
	for _, n := range []int{1, 24, sendPayload, sendPayload + 1, maxPayload, 5 << 20} {
		roundTrip(t, c, n)
	}
}

func TestNewConnectionEndsFormer(t *testing.T) {
	host, guest := pair(t)
	l := Listen(guest)
	for range 5 {
		first, a := connect(t, keep{host}, l)
		// Leave the channel in the middle of frames on both ways.
		go func() { _, _ = a.Write(make([]byte, 1<<20)) }()
		_, _ = io.ReadFull(first, make([]byte, 1000))
		var cut [headerSize]byte
		header{kind: kindData, length: maxPayload, epoch: first.(*hostConn).epoch, seq: 1}.put(cut[:])
		_, _ = host.Write(append(cut[:], "only a part"...))
		ended := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, a)
			ended <- err
		}()

		second, b := connect(t, keep{host}, l)
		if err := <-ended; !errors.Is(err, errReplaced) {
			t.Fatalf("the former connection ended with %v", err)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, errReplaced) {
			t.Fatalf("writing to the former connection: %v", err)
		}
		go func() { _, _ = b.Write([]byte("fresh")) }()
		got := make([]byte, 5)
		if _, err := io.ReadFull(second, got); err != nil || string(got) != "fresh" {
			t.Fatalf("read %q, %v", got, err)
		}
		_ = second.Close()
		if _, err := b.Read(got); !errors.Is(err, io.EOF) {
			t.Fatalf("after the host's close: %v", err)
		}
	}
}

func TestGuestClose(t *testing.T) {
	host, guest := pair(t)
	l := Listen(guest)
	c, g := connect(t, host, l)
	_, _ = g.Write([]byte("bye"))
	_ = g.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "bye" {
		t.Fatalf("ReadAll = %q, %v", b, err)
	}
}

func TestLateGuest(t *testing.T) {
	host, guest := pair(t)
	done := make(chan net.Conn, 1)
	go func() {
		c, err := Dial(t.Context(), host)
		if err != nil {
			t.Error(err)
		}
		done <- c
	}()
	time.Sleep(300 * time.Millisecond)
	go echo(Listen(guest))
	roundTrip(t, <-done, 1<<20)
}

func TestDialGivesUp(t *testing.T) {
	host, _ := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, host); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Dial = %v", err)
	}
}

func TestLostFrameBreaks(t *testing.T) {
	host, guest := pair(t)
	l := Listen(guest)
	hc, g := connect(t, host, l)
	c := hc.(*hostConn)
	_, _ = c.Write([]byte("one"))
	if _, err := io.ReadFull(g, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	c.out.seq++ // as if a frame had been dropped
	_, _ = c.Write([]byte("three"))
	if _, err := g.Read(make([]byte, 10)); err == nil {
		t.Fatal("a connection with a hole goes on")
	}
}

func TestHangup(t *testing.T) {
	host, guest := pair(t)
	port := &hanging{Conn: guest, hang: make(chan struct{}, 1)}
	l := Listen(port)
	c, g := connect(t, keep{host}, l)
	_, _ = c.Write([]byte("x"))
	if _, err := io.ReadFull(g, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	port.hang <- struct{}{}
	_ = guest.SetReadDeadline(time.Unix(1, 0))
	if _, err := g.Read(make([]byte, 1)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("Read after a hangup = %v", err)
	}
	go echo(l)
	roundTrip(t, dial(t, host), 1000)
}

// hanging is a port whose host leaves without a word when told.
type hanging struct {
	net.Conn
	hang chan struct{}
}

func (h *hanging) Read(p []byte) (int, error) {
	for {
		n, err := h.Conn.Read(p)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		_ = h.SetReadDeadline(time.Time{})
		select {
		case <-h.hang:
			return 0, errHangup
		default:
		}
	}
}

// FuzzScanner feeds the frame decoder hostile bytes, as the guest's writes are for the host.
func FuzzScanner(f *testing.F) {
	var h [headerSize]byte
	header{kind: kindData, length: 3, epoch: 7, seq: 1}.put(h[:])
	f.Add(append(append([]byte("junk"), h[:]...), "abc"...))
	header{kind: kindFin, epoch: 7, seq: 2}.put(h[:])
	f.Add(h[:])
	f.Fuzz(func(t *testing.T, in []byte) {
		s := newScanner(bytes.NewReader(in))
		for {
			f, _, err := s.next()
			if err != nil {
				return
			}
			if f.length > maxPayload || f.kind == 0 || f.kind >= kindEnd {
				t.Fatalf("frame %+v", f)
			}
			if f.length > 0 {
				if n, err := s.payload(make([]byte, 1+f.length/2)); n > f.length || (n == 0 && err == nil) {
					t.Fatalf("payload: %d of %d, %v", n, f.length, err)
				}
			}
		}
	})
}

// FuzzHostConn is a host that reads what a hostile guest wrote after its ACK.
func FuzzHostConn(f *testing.F) {
	var h [headerSize]byte
	header{kind: kindData, length: 3, epoch: 7, seq: 1}.put(h[:])
	f.Add(append(h[:], "abc"...))
	f.Fuzz(func(t *testing.T, in []byte) {
		c := &hostConn{epoch: 7, in: newScanner(bytes.NewReader(in))}
		n, err := io.Copy(io.Discard, c)
		if n > int64(len(in)) {
			t.Fatalf("%d bytes out of %d, %v", n, len(in), err)
		}
	})
}

func BenchmarkLink(b *testing.B) {
	fds, _ := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	var ends [2]net.Conn
	for i, fd := range fds {
		ends[i], _ = net.FileConn(os.NewFile(uintptr(fd), "pair"))
	}
	l := Listen(ends[1])
	go func() {
		g, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{g})
	}()
	c, err := Dial(b.Context(), ends[0])
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}
