package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/smolvm/smolvm/internal/network/secret"
)

const (
	handshakeOutside = 20 * time.Second
	// How long a server may take to say whether it wants a body, before it gets it anyway.
	expectLimit  = 5 * time.Second
	idleUpstream = 90 * time.Second
	minBurst     = 16 << 10
)

// roundTripper makes the requests to the outside.
type roundTripper struct{ s *Session }

// RoundTrip implements http.RoundTripper. The request is its own: it changes it.
func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	s, q := t.s, requestOf(r.Context())
	secrets := s.p.o.Secrets()
	used, err := secrets.Request(s.flow.Name, s.secure, r)
	if err != nil {
		return nil, err
	}
	q.record.Secrets = used
	redacts := secrets.Redacts(s.flow.Name)
	if redacts {
		r.Header.Set("Accept-Encoding", "identity")
	}
	if r.Body != nil {
		r.Body = &body{r: secrets.Body(s.flow.Name, r.Body), c: r.Body, q: q, trailer: func() error { return secrets.Trailer(s.flow.Name, r.Trailer) }}
	}
	res, err := s.outside(r).RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if redacts {
		redact(secrets, s.flow.Name, res)
	}
	if err := q.bound(r, res); err != nil {
		_ = res.Body.Close()
		return nil, err
	}
	return res, nil
}

// redact puts placeholders in place of values in a response.
func redact(secrets *secret.Set, name string, res *http.Response) {
	secrets.ResponseHeader(name, res.Header)
	if res.StatusCode == http.StatusSwitchingProtocols || res.Body == http.NoBody {
		return
	}
	// What is put in may be shorter or longer.
	if res.Request.Method != http.MethodHead && res.Header.Get("Content-Length") == "" {
		res.ContentLength = -1
	}
	res.Body = &trailing{ReadCloser: secrets.ResponseBody(name, res.Body), end: func() { secrets.ResponseHeader(name, res.Trailer) }}
}

// trailing calls end when the body has ended, which is when its trailers are there.
type trailing struct {
	io.ReadCloser
	end func()
}

func (t *trailing) Read(b []byte) (int, error) {
	n, err := t.ReadCloser.Read(b)
	if errors.Is(err, io.EOF) && t.end != nil {
		t.end()
		t.end = nil
	}
	return n, err
}

// bound holds a response to what the rule says of its size and speed.
func (q *request) bound(r *http.Request, res *http.Response) error {
	limit, pace := q.verdict.MaxResponse, q.verdict.Rate
	if limit > 0 && res.ContentLength > limit && r.Method != http.MethodHead {
		return q.tooLarge()
	}
	b := &bounded{ReadCloser: res.Body, q: q, left: limit, limited: limit > 0, ctx: r.Context()}
	if pace > 0 {
		b.pace = rate.NewLimiter(rate.Limit(pace), int(max(pace/4, minBurst)))
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		up, ok := res.Body.(io.ReadWriteCloser)
		if !ok {
			return errors.New("the server switched protocols on a connection that cannot")
		}
		q.record.Status = res.StatusCode // the connection is taken from who would note it
		res.Body = &duplex{bounded: b, w: up}
		return nil
	}
	if limit > 0 || pace > 0 {
		res.Body = b
	}
	return nil
}

func (q *request) tooLarge() error {
	return &refusal{status: http.StatusForbidden, rule: q.verdict.Rule, reason: "the response is larger than the rule allows"}
}

// bounded is a response's body under a rule's limits.
type bounded struct {
	io.ReadCloser
	q       *request
	left    int64
	limited bool
	pace    *rate.Limiter
	ctx     context.Context //nolint:containedctx // the request's
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.pace != nil && len(p) > b.pace.Burst() {
		p = p[:b.pace.Burst()]
	}
	n, err := b.ReadCloser.Read(p)
	if b.limited {
		if b.left -= int64(n); b.left < 0 {
			why := b.q.tooLarge()
			b.q.refuse(asRefusal(why))
			return max(0, n+int(b.left)), why
		}
	}
	if b.pace != nil && n > 0 {
		if werr := b.pace.WaitN(b.ctx, n); werr != nil {
			return n, werr
		}
	}
	return n, err
}

// duplex is what follows the switch to another protocol.
type duplex struct {
	*bounded
	w io.Writer
}

func (d *duplex) Read(p []byte) (int, error) {
	n, err := d.bounded.Read(p)
	d.q.in.Add(int64(n))
	return n, err
}

func (d *duplex) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	d.q.out.Add(int64(n))
	return n, err
}

// CloseWrite tells the server that no more will come.
func (d *duplex) CloseWrite() error {
	if w, ok := d.w.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// body is a request's body on its way out.
type body struct {
	r       io.Reader
	c       io.Closer
	q       *request
	trailer func() error
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.q.out.Add(int64(n))
	if errors.Is(err, io.EOF) {
		if terr := b.trailer(); terr != nil {
			err = terr
		}
	}
	if misuse, ok := errors.AsType[*secret.Misuse](err); ok { // the response may be on its way already
		b.q.refuse(misused(misuse))
	}
	return n, err
}

func (b *body) Close() error { return b.c.Close() }

// outside is the transport that speaks as the guest does: HTTP/2 where it does, and the server too.
func (s *Session) outside(r *http.Request) *http.Transport {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.transport != nil {
		return s.transport
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(s.secure || r.ProtoMajor == 1)
	protocols.SetHTTP2(s.secure && r.ProtoMajor == 2)
	protocols.SetUnencryptedHTTP2(!s.secure && r.ProtoMajor == 2)
	s.transport = &http.Transport{
		DialContext: s.dial, TLSClientConfig: s.p.client(s.flow.Name), TLSHandshakeTimeout: handshakeOutside, DisableCompression: true,
		MaxResponseHeaderBytes: maxResponseHeader, ExpectContinueTimeout: expectLimit, IdleConnTimeout: idleUpstream,
		MaxIdleConnsPerHost: maxUpstream, MaxConnsPerHost: maxUpstream, Protocols: protocols,
		HTTP2: &http.HTTP2Config{
			StrictMaxConcurrentRequests: true, MaxReceiveBufferPerConnection: s.window, MaxReceiveBufferPerStream: s.window,
			MaxDecoderHeaderTableSize: 4 << 10, MaxEncoderHeaderTableSize: 4 << 10,
		},
	}
	return s.transport
}

// upstreamConn is a connection to the outside.
type upstreamConn struct {
	net.Conn
	s    *Session
	addr netip.Addr
	once sync.Once
}

// dial connects to the flow's name, whatever the transport believes.
func (s *Session) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	s.mu.Lock()
	first := !s.dialled
	s.dialled = true
	s.mu.Unlock()
	if err := s.p.o.Reserve(first); err != nil {
		return nil, err
	}
	up, err := s.p.o.Dial(ctx, s.flow)
	if err != nil {
		s.p.o.Release()
		return nil, err
	}
	c := &upstreamConn{Conn: up.Conn, s: s, addr: up.Addr}
	s.mu.Lock()
	s.addr = up.Addr
	ended := s.ended
	if !ended {
		s.upstream[c] = struct{}{}
	}
	s.mu.Unlock()
	// The policy may have changed while it was dialled.
	f := s.flow
	f.Addr = c.addr
	if v := s.p.o.Policy().Flow(f); !v.Allow || ended {
		_ = c.Close()
		return nil, &refusal{status: http.StatusForbidden, rule: v.Rule, reason: policyChanged}
	}
	return c, nil
}

func (c *upstreamConn) Close() error {
	c.once.Do(func() {
		c.s.mu.Lock()
		delete(c.s.upstream, c)
		c.s.mu.Unlock()
		c.s.p.o.Release()
	})
	return c.Conn.Close()
}

// CloseWrite tells the server that no more will come.
func (c *upstreamConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
