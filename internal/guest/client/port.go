package client

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/smolvm/smolvm/internal/guest/tunnel"
)

// PortConn is the host's end of a connection to a port of the guest. A break is told to its peer as one.
type PortConn interface {
	tunnel.Conn
	io.Closer
	SetLinger(seconds int) error
}

var _ PortConn = (*net.TCPConn)(nil)

// JoinPort joins conn with a TCP port of the guest, until both directions have ended or something fails, and closes it. seen is
// told of the bytes. A port on which nothing listens is class not_found.
func (c *Client) JoinPort(ctx context.Context, port int, conn PortConn, seen tunnel.Seen) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up, w := io.Pipe()
	abort := func() {
		_ = conn.SetLinger(0)
		_ = conn.Close()
		cancel()
		_ = w.CloseWithError(context.Canceled)
	}
	defer context.AfterFunc(ctx, abort)()
	body, err := c.request(ctx, http.MethodPost, "/v1/port", url.Values{"port": {strconv.Itoa(port)}}, up)
	if err != nil {
		abort()
		return err
	}
	defer func() { _ = body.Close() }()
	if err := tunnel.Join(conn, body, w, abort, seen); err != nil {
		return err
	}
	_ = w.Close()
	return conn.Close()
}

// WaitPort returns when something in the guest listens on a TCP port.
func (c *Client) WaitPort(ctx context.Context, port int) error {
	body, err := c.request(ctx, http.MethodGet, "/v1/port/wait", url.Values{"port": {strconv.Itoa(port)}}, nil)
	if err != nil {
		return err
	}
	return body.Close()
}
