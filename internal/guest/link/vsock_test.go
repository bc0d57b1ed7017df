package link

import (
	"errors"
	"net"
	"testing"

	"github.com/mdlayher/vsock"
)

// callers gives out connections from those addresses, then ends.
type callers struct {
	net.Listener
	from   []net.Addr
	closed int
}

func (c *callers) Accept() (net.Conn, error) {
	if len(c.from) == 0 {
		return nil, errors.New("no more")
	}
	a := c.from[0]
	c.from = c.from[1:]
	return &caller{from: a, closed: &c.closed}, nil
}

type caller struct {
	net.Conn
	from   net.Addr
	closed *int
}

func (c *caller) RemoteAddr() net.Addr { return c.from }
func (c *caller) Close() error         { *c.closed++; return nil }

// TestHostOnly: programs in the guest, which reach the agent's port by the loopback or by the guest's own address, are no
// hosts.
func TestHostOnly(t *testing.T) {
	host := &vsock.Addr{ContextID: 2, Port: 1}
	c := &callers{from: []net.Addr{
		&vsock.Addr{ContextID: 1}, &vsock.Addr{ContextID: GuestCID}, &net.UnixAddr{}, nil, host, &vsock.Addr{ContextID: 0},
	}}
	l := hostOnly{c}
	conn, err := l.Accept()
	if err != nil || conn.RemoteAddr() != host || c.closed != 4 {
		t.Errorf("%v, %v; %d were hung up on", conn, err, c.closed)
	}
	if conn, err := l.Accept(); err == nil || c.closed != 5 {
		t.Errorf("%v; %d were hung up on", conn, c.closed)
	}
}
