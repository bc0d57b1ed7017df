package agent_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/errdefs"
)

// service listens on the loopback and gives each connection to serve.
func service(t *testing.T, serve func(*net.TCPConn)) (port int) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func echo(c *net.TCPConn) {
	defer func() { _ = c.Close() }()
	_, _ = io.Copy(c, c)
}

// open is a client whose connection is joined with a port of the guest, and how that ends.
func (g *guest) open(t *testing.T, port int) (client *net.TCPConn, done chan error) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	_ = client.SetDeadline(time.Now().Add(time.Minute))
	host, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	done = make(chan error, 1)
	go func() { done <- g.JoinPort(t.Context(), port, host, func(int, int) {}) }()
	return client, done
}

func joined(t *testing.T, done chan error, wrong bool) error {
	t.Helper()
	select {
	case err := <-done:
		if (err != nil) != wrong {
			t.Errorf("it ended with %v", err)
		}
		return err
	case <-time.After(30 * time.Second):
		t.Error("it did not end")
		return nil
	}
}

func TestPort(t *testing.T) {
	g := ready(t)
	port := service(t, echo)
	data := make([]byte, 2<<20)
	_, _ = rand.Read(data)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			client, done := g.open(t, port)
			go func() {
				_, _ = client.Write(data)
				_ = client.CloseWrite()
			}()
			if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes came back, %v", len(got), err)
			}
			_ = joined(t, done, false)
		})
	}
	all.Wait()
}

// TestPortRefused: nothing listens, and what is no port.
func TestPortRefused(t *testing.T) {
	g := ready(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	client, done := g.open(t, port)
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
	if err := joined(t, done, true); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("%v", err)
	}
	for _, port := range []int{-1, 0, 65536} {
		_, done := g.open(t, port)
		if err := joined(t, done, true); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("port %d: %v", port, err)
		}
		if err := g.WaitPort(t.Context(), port); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("wait for port %d: %v", port, err)
		}
	}
	if _, done := start(t).open(t, port); !errdefs.Is(joined(t, done, true), errdefs.WrongState) {
		t.Error("a guest that is not configured connects")
	}
}

// TestPortBreaks: whoever breaks, the other one sees it as that.
func TestPortBreaks(t *testing.T) {
	g := ready(t)
	served := make(chan *net.TCPConn, 9)
	port := service(t, func(c *net.TCPConn) { served <- c })
	t.Run("service", func(t *testing.T) {
		client, done := g.open(t, port)
		c := <-served
		_ = c.SetLinger(0)
		_ = c.Close()
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client sees %v", err)
		}
		_ = joined(t, done, true)
	})
	t.Run("client", func(t *testing.T) {
		client, done := g.open(t, port)
		c := <-served
		_ = client.SetLinger(0)
		_ = client.Close()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the service sees %v", err)
		}
		_ = joined(t, done, true)
	})
	t.Run("link", func(t *testing.T) {
		client, done := g.open(t, port)
		c := <-served
		_, _ = io.WriteString(c, "x")
		if _, err := client.Read(make([]byte, 1)); err != nil { // the agent has it
			t.Fatal(err)
		}
		_ = g.Close()
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client sees %v", err)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the service sees %v", err)
		}
		_ = joined(t, done, true)
	})
}

// TestPortsStalled: services that read nothing, and clients that read nothing, hold up nobody else.
func TestPortsStalled(t *testing.T) {
	g := ready(t)
	deaf := service(t, func(c *net.TCPConn) {
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetReadBuffer(4096)
		b := make([]byte, 64<<10)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	})
	for range 30 {
		client, _ := g.open(t, deaf)
		go func() { _, _ = client.Write(make([]byte, 64<<20)) }()
	}
	time.Sleep(500 * time.Millisecond)
	client, done := g.open(t, service(t, echo))
	go func() {
		_, _ = client.Write(make([]byte, 1<<20))
		_ = client.CloseWrite()
	}()
	if got, err := io.ReadAll(client); err != nil || len(got) != 1<<20 {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	_ = joined(t, done, false)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := g.Ping(ctx); err != nil {
		t.Errorf("ping: %v", err)
	}
}

func TestWaitPort(t *testing.T) {
	g := ready(t)
	if err := g.WaitPort(t.Context(), service(t, echo)); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := g.WaitPort(ctx, 1); !errdefs.Is(err, errdefs.Timeout) {
		t.Errorf("%v", err)
	}
}
