package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/hangup"
	"github.com/smolvm/smolvm/internal/sys/sockpath"
)

// Client talks to one supervisor over one connection. It is safe for concurrent use.
type Client struct {
	conn  *hangup.Conn
	http  *http.ClientConn
	hello Hello
}

// host stands in requests where a name must; nobody resolves it.
const host = "supervisor:80"

// Dial connects to the control socket called name in the directory dir and says hello. ctx bounds the call only.
func Dial(ctx context.Context, dir, name string) (_ *Client, err error) {
	d, err := sockpath.Open(dir)
	if err != nil {
		return nil, errdefs.Unavailable.Errorf("reach the supervisor: %w", err)
	}
	defer func() { _ = d.Close() }()
	conn, err := d.Dial(ctx, name)
	if err != nil {
		return nil, errdefs.Unavailable.Errorf("reach the supervisor: %w", err)
	}
	c := &Client{conn: hangup.Watch(conn)}
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	t := &http.Transport{
		Protocols: p, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c.conn, nil },
		HTTP2:       &http.HTTP2Config{MaxReadFrameSize: maxFrame, MaxReceiveBufferPerStream: streamWindow},
	}
	if c.http, err = t.NewClientConn(ctx, "http", host); err != nil {
		return nil, errdefs.Unavailable.Errorf("reach the supervisor: %w", err)
	}
	if c.hello, err = call[Hello](ctx, c, RouteHello, Nothing{}); err != nil {
		return nil, err
	}
	return c, overlap("the VM's supervisor", c.hello.ProtocolMin, c.hello.ProtocolMax)
}

// Hello is what the supervisor said of itself.
func (c *Client) Hello() Hello { return c.hello }

// Gone is closed when the connection has ended.
func (c *Client) Gone() <-chan struct{} { return c.conn.Gone() }

// Usable reports whether a call may be tried: the connection has not ended, and the supervisor has not said that it is about
// to. It asks nobody.
func (c *Client) Usable() bool {
	select {
	case <-c.conn.Gone():
		return false
	default:
		return c.http.Err() == nil
	}
}

// unsent marks the failure of a call of which the supervisor has seen nothing.
type unsent struct{ error }

// Unwrap gives the cause.
func (u unsent) Unwrap() error { return u.error }

// Unsent reports whether a call failed before anything of it was sent, so that it can be made again on another connection.
func Unsent(err error) bool {
	_, is := errors.AsType[unsent](err)
	return is
}

// Close ends the connection; commands with on_disconnect kill that still run end with it.
func (c *Client) Close() error {
	if c.http != nil {
		_ = c.http.Close()
	}
	if err := c.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// do makes a request. The caller closes the body of an answer without error.
func (c *Client) do(ctx context.Context, method, route string, body io.Reader) (io.ReadCloser, error) {
	var sent atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	r, err := http.NewRequestWithContext(traced, method, "http://"+host+route, body)
	if err != nil {
		return nil, errdefs.Invalid.Errorf("ask the supervisor: %w", err)
	}
	r.Header.Set(protocolHeader, protocols())
	res, err := c.http.RoundTrip(r)
	if err != nil && ctx.Err() == nil && !sent.Load() {
		err = unsent{err}
	}
	if err != nil {
		return nil, lost(ctx, err)
	}
	if res.StatusCode < http.StatusMultipleChoices {
		return &answerBody{res.Body, ctx}, nil
	}
	defer func() { _ = res.Body.Close() }()
	var p errdefs.Problem
	if err := json.NewDecoder(io.LimitReader(res.Body, maxProblem)).Decode(&p); err != nil || p.Message == "" {
		return nil, errdefs.Internal.Errorf("%s: the supervisor answered with status %d", strings.TrimPrefix(route, "/v1/"), res.StatusCode)
	}
	return nil, p.Err()
}

// lost gives a broken connection its class, and the caller's own end its own.
func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, known := errors.AsType[*errdefs.Error](err); known {
		return err
	}
	return errdefs.Unavailable.Errorf("the supervisor is gone: %w", err).WithRemedy("smolvm ls -a")
}

// answerBody gives an answer's errors their class.
type answerBody struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // the call's, which lasts as long as its body
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // a wrapped EOF is no clean end
		err = lost(b.ctx, err)
	}
	return n, err
}

// call makes a call of JSON.
func call[Res any](ctx context.Context, c *Client, route string, req any) (Res, error) {
	var res Res
	b, err := json.Marshal(req)
	if err != nil {
		return res, errdefs.Internal.Errorf("ask the supervisor: %w", err)
	}
	answer, err := c.do(ctx, http.MethodPost, route, strings.NewReader(string(b)))
	if err != nil {
		return res, err
	}
	defer func() { _ = answer.Close() }()
	if err := json.NewDecoder(io.LimitReader(answer, maxListing)).Decode(&res); err != nil {
		return res, lost(ctx, err)
	}
	return res, nil
}
