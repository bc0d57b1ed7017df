package client

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/tunnel"
)

// PortConn is the host's end of a connection to a port of the guest. A break is told to its peer as one.
type PortConn interface {
	tunnel.Conn
	io.Closer
	SetLinger(seconds int) error
}

var _ PortConn = (*net.TCPConn)(nil)

// portTime bounds the wait for the agent's word: it tries a service for 10 s, and nobody reads conn meanwhile.
const portTime = 15 * time.Second

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
	late := time.AfterFunc(c.portTime, abort)
	body, err := c.request(ctx, http.MethodPost, "/v1/port", url.Values{"port": {strconv.Itoa(port)}}, &paced{PipeReader: up, gate: c.gate, done: make(chan struct{})})
	if !late.Stop() && err != nil {
		err = errdefs.Timeout.Errorf("connect to the guest: its agent does not answer within %s", c.portTime)
	}
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

// portWriters is how many connections to ports may have bytes in the link's hands at once. Commands share the link, and
// would else wait behind a piece of each connection.
const portWriters = 4

// paced is a request's body that gives its bytes out when it is its turn. The turn ends with the next Read: then they are sent.
type paced struct {
	*io.PipeReader
	gate chan struct{}
	done chan struct{}

	mu     sync.Mutex
	held   bool
	closed bool
}

// Read implements io.Reader.
func (p *paced) Read(b []byte) (int, error) {
	p.release(false)
	n, err := p.PipeReader.Read(b)
	if n == 0 {
		return n, err
	}
	select {
	case p.gate <- struct{}{}:
	case <-p.done:
		return 0, io.ErrClosedPipe
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		<-p.gate
		return 0, io.ErrClosedPipe
	}
	p.held = true
	return n, err
}

// Close implements io.Closer; the transport calls it, also in the middle.
func (p *paced) Close() error {
	p.release(true)
	return p.PipeReader.Close()
}

func (p *paced) release(last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held {
		<-p.gate
		p.held = false
	}
	if last && !p.closed {
		p.closed = true
		close(p.done)
	}
}
