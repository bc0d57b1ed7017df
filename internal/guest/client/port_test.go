package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/proto"
)

// hostile is an agent that says hello, and then does as it likes.
type hostile struct {
	proto.UnimplementedAgentHandler
}

func (hostile) Hello(context.Context, *connect.Request[proto.HelloRequest]) (*connect.Response[proto.HelloResponse], error) {
	return connect.NewResponse(&proto.HelloResponse{ProtocolMin: proto.VersionMin, ProtocolMax: proto.VersionMax}), nil
}

// guest is a client of such an agent, whose answer to a connection is port.
func guest(t *testing.T, port http.HandlerFunc) *Client {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(proto.NewAgentHandler(hostile{}))
	mux.HandleFunc("POST /v1/port", port)
	host, end := conns(t)
	l := &once{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conn <- end
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: mux, Protocols: p, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(l) }()
	c, err := New(t.Context(), func(context.Context) (net.Conn, error) { return host, nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		close(l.closed) // Close waits for Accept
		_ = srv.Close()
	})
	return c
}

// once is a listener of one connection.
type once struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (l *once) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *once) Close() error   { return nil }
func (l *once) Addr() net.Addr { return &net.UnixAddr{} }

// conns is a connection over the loopback.
func conns(t *testing.T) (a, b *net.TCPConn) {
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

// TestHostilePort: an agent that is silent, or says what it must not, costs its client the connection and nothing else.
func TestHostilePort(t *testing.T) {
	for name, tt := range map[string]struct {
		port  http.HandlerFunc
		class errdefs.Class
	}{
		"silent":   {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, errdefs.Timeout},
		"nonsense": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello, world") }, errdefs.Internal},
		"ends":     {func(http.ResponseWriter, *http.Request) {}, errdefs.Internal},
		"long error": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write(bytes.Repeat([]byte("x"), 10<<20))
		}, errdefs.Internal},
		"flood": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(append([]byte{'d', 0, 0x80, 0}, make([]byte, 32<<10)...)); err != nil {
					return
				}
			}
		}, errdefs.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			c := guest(t, tt.port)
			c.portTime = 200 * time.Millisecond
			client, host := conns(t)
			_ = client.SetReadBuffer(4096)
			done := make(chan error, 1)
			go func() { done <- c.JoinPort(t.Context(), 80, host, func(int, int) {}) }()
			select {
			case err := <-done:
				if !errdefs.Is(err, tt.class) && (tt.class != errdefs.Internal || err == nil) {
					t.Errorf("%v", err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("it does not end")
			}
			_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.Copy(io.Discard, client); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client sees %v", err)
			}
			if len(c.gate) != 0 {
				t.Errorf("%d turns are not given back", len(c.gate))
			}
		})
	}
}
