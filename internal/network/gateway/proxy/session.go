package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"sync"
	"time"

	"github.com/smolvm/smolvm/internal/network"
)

// Session is one connection of the guest's.
type Session struct {
	p    *Proxy
	flow network.Flow

	secure bool   // the guest speaks TLS
	sni    string // what it asked for
	window int    // for the outside
	proxy  *httputil.ReverseProxy
	gather *gather         // of HTTP/2 with TLS
	ctx    context.Context //nolint:containedctx // lasts as long as the session does

	mu        sync.Mutex
	running   int           // handlers
	idle      chan struct{} // closed when the last one returns after the end
	transport *http.Transport
	active    map[*request]struct{}
	upstream  map[*upstreamConn]struct{}
	addr      netip.Addr // where it led last
	dialled   bool
	ended     bool
}

// Open makes a session for a flow by name, while there is room.
func (p *Proxy) Open(f network.Flow) (*Session, error) {
	if p.count.Add(1) > MaxSessions {
		p.count.Add(-1)
		return nil, errTooMany
	}
	return &Session{p: p, flow: f, active: map[*request]struct{}{}, upstream: map[*upstreamConn]struct{}{}}, nil
}

// Close gives the session's place back. Serve has returned, or was never called.
func (s *Session) Close() { s.p.count.Add(-1) }

// Serve serves the connection until it ends, and leaves nothing behind. An error says why it could not be served.
func (s *Session) Serve(ctx context.Context, c net.Conn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.ctx = ctx
	defer s.close()
	guest, upstream := windows(s.p.count.Load())
	s.window = upstream
	done := make(chan struct{})
	low := &guestConn{Conn: c, r: bufio.NewReaderSize(c, 512), closed: done}
	conn, err := s.begin(ctx, low)
	if err != nil {
		_ = c.Close()
		return err
	}
	protocols := &http.Protocols{}
	if t, ok := conn.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol == "h2" {
		s.gather = &gather{Conn: t, limit: s.p.o.Gather}
		conn = s.gather
		protocols.SetUnencryptedHTTP2(true) // to the server, which does not see the TLS
	} else {
		protocols.SetHTTP1(true)
		protocols.SetUnencryptedHTTP2(!s.secure)
	}
	server := &http.Server{
		Handler: s, Protocols: protocols, ReadHeaderTimeout: s.p.o.Handshake, IdleTimeout: s.p.o.Idle, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(s.p.o.Log.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return ctx },
		DisableGeneralOptionsHandler: true,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: guest, MaxReceiveBufferPerStream: guest,
			MaxDecoderHeaderTableSize: 4 << 10, MaxEncoderHeaderTableSize: 4 << 10,
		},
	}
	s.proxy = &httputil.ReverseProxy{
		Rewrite: s.rewrite, Transport: roundTripper{s}, FlushInterval: flushAfter, BufferPool: s.p.buffers, ErrorHandler: s.failed, ErrorLog: server.ErrorLog,
	}
	_ = server.Serve(&once{conn: conn, closed: done})
	cancel(nil)
	s.wait()
	return nil
}

// enter lets a handler begin while the session lasts.
func (s *Session) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.running++
	}
	return !s.ended
}

func (s *Session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running--; s.running == 0 && s.idle != nil {
		close(s.idle)
	}
}

// wait lets no handler begin any more, and waits for those that run.
func (s *Session) wait() {
	s.mu.Lock()
	s.ended = true
	var idle chan struct{}
	if s.running > 0 {
		s.idle = make(chan struct{})
		idle = s.idle
	}
	s.mu.Unlock()
	if idle != nil {
		<-idle
	}
}

// begin looks at the first byte and, where it is TLS, makes the handshake. The deadline holds until the server has seen what protocol
// it is, which sets its own.
func (s *Session) begin(ctx context.Context, c *guestConn) (net.Conn, error) {
	_ = c.SetReadDeadline(time.Now().Add(s.p.o.Handshake))
	first, err := c.r.Peek(1)
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the guest said nothing")
		}
		return nil, fmt.Errorf("the guest said nothing: %w", err)
	}
	if first[0] != recordHandshake {
		return c, nil
	}
	s.secure = true
	config, err := s.p.server(s.flow.Name, &s.sni)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, s.p.o.Handshake)
	defer cancel()
	t := tls.Server(c, config)
	if err := t.HandshakeContext(limited); err != nil {
		if s.misnamed() {
			return nil, fmt.Errorf("TLS with the guest: it asks for %.80q on a connection to %s: %w", s.sni, s.flow.Name, err)
		}
		return nil, fmt.Errorf("TLS with the guest: %w", err)
	}
	return t, nil
}

// flushAfter is how long a part of a response of known length may wait for more of it. What has no length, as events, never waits.
const flushAfter = 10 * time.Millisecond

// recordHandshake is the first byte of TLS.
const recordHandshake = 0x16

// misnamed says that the guest asked for another name than the flow's.
func (s *Session) misnamed() bool { return s.sni != "" && !sameName(s.sni, s.flow.Name) }

func sameName(text, name string) bool {
	got, err := network.Canonical(text)
	return err == nil && got == name
}

// close ends what leads outside.
func (s *Session) close() {
	s.mu.Lock()
	s.ended = true
	t := s.transport
	var all []*upstreamConn
	for c := range s.upstream {
		all = append(all, c)
	}
	s.mu.Unlock()
	if t != nil {
		t.CloseIdleConnections()
	}
	for _, c := range all {
		_ = c.Close()
	}
}

// Reconsider ends what the policy that is in force now does not allow any more: requests, and connections to the outside.
func (s *Session) Reconsider() {
	policy := s.p.o.Policy()
	s.mu.Lock()
	defer s.mu.Unlock()
	for q := range s.active {
		if !policy.Request(s.flow, q.record.Method, q.path).Allow {
			q.refuse(&refusal{status: http.StatusForbidden, rule: network.Default, reason: policyChanged})
		}
	}
	for c := range s.upstream {
		f := s.flow
		if f.Addr = c.addr; f.Addr.IsValid() && !policy.Flow(f).Allow {
			go func() { _ = c.Conn.Close() }() // its reader takes it out
		}
	}
}

const policyChanged = "the policy has changed"

// Addr is where the session led last; zero when it led nowhere, or a proxy knows.
func (s *Session) Addr() netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// guestConn is the guest's connection, of which the beginning was looked at.
type guestConn struct {
	net.Conn
	r      *bufio.Reader
	once   sync.Once
	closed chan struct{}
}

func (c *guestConn) Read(b []byte) (int, error) {
	if c.r != nil && c.r.Buffered() > 0 {
		return c.r.Read(b)
	}
	return c.Conn.Read(b)
}

// CloseWrite tells the guest that no more will come.
func (c *guestConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

func (c *guestConn) Close() error {
	defer c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// once is a listener that gives one connection and then waits for its end.
type once struct {
	conn   net.Conn
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *once) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (l *once) Close() error { return nil }

// Addr implements net.Listener.
func (l *once) Addr() net.Addr { return &net.TCPAddr{} }
