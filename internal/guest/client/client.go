// Package client is the host's end of the protocol with the agent in a guest. The guest is hostile: everything that comes
// from it is bounded, and its answers are checked before they are believed.
//
// Layer: guest. It may import guest/proto, guest/tunnel, internal/sys and errdefs.
package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/sys/hangup"
)

// Dialer gives a fresh stream to the agent.
type Dialer func(ctx context.Context) (net.Conn, error)

// Client talks to one agent over one stream. It is safe for concurrent use. When the stream is gone, every call fails with
// class unavailable, and New makes another.
type Client struct {
	conn  *hangup.Conn
	http  *http.ClientConn
	rpc   proto.AgentClient
	hello *proto.HelloResponse

	gate     chan struct{} // of connections to ports
	portTime time.Duration
}

const (
	maxFrame     = 256 << 10
	streamWindow = 4<<20 - 1
)

// New dials and says hello. ctx bounds the call only.
func New(ctx context.Context, dial Dialer) (_ *Client, err error) {
	raw, err := dial(ctx)
	if err != nil {
		return nil, classify(ctx, "reach the guest", err)
	}
	c := &Client{conn: hangup.Watch(raw), gate: make(chan struct{}, portWriters), portTime: portTime}
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	t := &http.Transport{
		Protocols: protocols, DisableCompression: true, MaxResponseHeaderBytes: proto.MaxHeader,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c.conn, nil },
		HTTP2:       &http.HTTP2Config{MaxReadFrameSize: maxFrame, MaxReceiveBufferPerStream: streamWindow},
	}
	if c.http, err = t.NewClientConn(ctx, "http", host); err != nil {
		return nil, classify(ctx, "reach the guest", err)
	}
	c.rpc = proto.NewAgentClient(doer{c.http}, "http://"+host,
		connect.WithReadMaxBytes(proto.MaxMessage), connect.WithSendMaxBytes(proto.MaxMessage),
		connect.WithAcceptCompression("gzip", nil, nil)) // no guest may send us what grows
	if c.hello, err = c.Announce(ctx, 0); err != nil {
		return nil, err
	}
	return c, nil
}

// host stands in requests where a name must; nobody resolves it.
const host = "guest:80"

// doer makes the connection what connect calls a client.
type doer struct{ conn *http.ClientConn }

func (d doer) Do(r *http.Request) (*http.Response, error) { return d.conn.RoundTrip(r) }

// Hello is what the agent said of itself.
func (c *Client) Hello() *proto.HelloResponse { return c.hello }

// Gone is closed when the stream has ended.
func (c *Client) Gone() <-chan struct{} { return c.conn.Gone() }

// Close ends the stream.
func (c *Client) Close() error {
	if c.http != nil {
		_ = c.http.Close()
	}
	if err := c.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Announce says hello in the machine's epoch; a higher one than the agent knows stops the guest until Resumed.
func (c *Client) Announce(ctx context.Context, epoch uint64) (*proto.HelloResponse, error) {
	h, err := unary(ctx, c, "say hello to the agent", c.rpc.Hello, &proto.HelloRequest{
		ProtocolMin: proto.VersionMin, ProtocolMax: proto.VersionMax, Epoch: epoch,
	})
	if err != nil {
		return nil, err
	}
	if h.GetProtocolMin() > proto.VersionMax || h.GetProtocolMax() < proto.VersionMin {
		return nil, errdefs.Unavailable.Errorf("the guest's agent speaks protocols %d to %d, this program %d to %d",
			h.GetProtocolMin(), h.GetProtocolMax(), proto.VersionMin, proto.VersionMax).
			WithRemedy("stop and start the VM: it then gets this program's agent")
	}
	return h, nil
}

// unary makes one call and gives its error a class.
func unary[Req, Res any](ctx context.Context, c *Client, what string,
	call func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error), req *Req,
) (*Res, error) {
	res, err := call(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, c.classify(ctx, what, err)
	}
	return res.Msg, nil
}

func (c *Client) classify(ctx context.Context, what string, err error) error {
	select {
	case <-c.conn.Gone():
		if ctx.Err() == nil && !connect.IsWireError(err) {
			return errdefs.Unavailable.Errorf("%s: the link to the guest is gone: %w", what, err)
		}
	default:
	}
	return classify(ctx, what, err)
}

// classify gives err its class. What the guest wrote is cut to a bearable length.
func classify(ctx context.Context, what string, err error) error {
	if _, known := errors.AsType[*errdefs.Error](err); known {
		return err
	}
	if cerr := ctx.Err(); cerr != nil {
		if errors.Is(cerr, context.DeadlineExceeded) {
			return errdefs.Timeout.Errorf("%s: %w", what, cerr)
		}
		return errdefs.Unavailable.Errorf("%s: %w", what, cerr)
	}
	cerr, ok := errors.AsType[*connect.Error](err)
	if !ok || !connect.IsWireError(err) {
		return errdefs.Unavailable.Errorf("%s: %w", what, err)
	}
	return classOf(cerr.Code()).Errorf("%s: %s", what, short(cerr.Message()))
}

func classOf(code connect.Code) errdefs.Class {
	switch code {
	case connect.CodeInvalidArgument, connect.CodeOutOfRange:
		return errdefs.Invalid
	case connect.CodeNotFound:
		return errdefs.NotFound
	case connect.CodeAlreadyExists:
		return errdefs.AlreadyExists
	case connect.CodeFailedPrecondition:
		return errdefs.WrongState
	case connect.CodeDeadlineExceeded:
		return errdefs.Timeout
	case connect.CodePermissionDenied, connect.CodeUnauthenticated:
		return errdefs.Denied
	case connect.CodeResourceExhausted:
		return errdefs.Exhausted
	case connect.CodeUnavailable, connect.CodeCanceled, connect.CodeUnimplemented, connect.CodeAborted:
		return errdefs.Unavailable
	case connect.CodeInternal, connect.CodeUnknown, connect.CodeDataLoss:
		return errdefs.Internal
	}
	return errdefs.Internal
}

func short(s string) string {
	const most = 4 << 10
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
