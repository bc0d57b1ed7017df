package link

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Listener is the guest's end of the channel. It is a net.Listener that gives one connection after another.
//
// Nobody but the reader of the present connection, or Accept while there is none, reads the port: bytes go from the
// kernel to whom they are for with at most one copy and no goroutine between.
type Listener struct {
	port io.ReadWriteCloser
	out  *sender

	pull sync.Mutex // held while reading the port; guards in
	in   *scanner
	own  *guestConn // whose payload is next in in; guarded by pull

	mu     sync.Mutex // guards what follows
	change *sync.Cond
	cur    *guestConn // the present connection, nil when there is none
	fresh  *guestConn // cur, while Accept has not given it out
	err    error      // why the port cannot be read any more
}

// Listen returns a listener on port, which it takes over. OpenPort opens one; any stream will do in tests.
func Listen(port io.ReadWriteCloser) *Listener {
	l := &Listener{port: port, in: newScanner(port), out: newSender(port)}
	l.change = sync.NewCond(&l.mu)
	return l
}

// Accept waits for a host's connection.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		l.mu.Lock()
		for l.err == nil && l.fresh == nil && l.cur != nil {
			l.change.Wait()
		}
		c, err := l.fresh, l.err
		l.fresh = nil
		l.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if c != nil {
			return c, nil
		}
		l.pull.Lock()
		if l.present() == nil {
			l.step()
		}
		l.pull.Unlock()
	}
}

// Close closes the port and ends the present connection.
func (l *Listener) Close() error {
	l.fail(net.ErrClosed)
	return l.port.Close()
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return addr{} }

type addr struct{}

func (addr) Network() string { return "virtio-serial" }
func (addr) String() string  { return PortName }

func (l *Listener) present() *guestConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cur
}

// fail ends everything with err, unless it has ended.
func (l *Listener) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	l.replace(nil, err)
}

// replace makes c the present connection and ends the former one with err. l.mu is held.
func (l *Listener) replace(c *guestConn, err error) {
	if l.cur != nil && l.cur.err == nil {
		l.cur.err = err
	}
	l.cur, l.fresh = c, c
	l.change.Broadcast()
}

// end ends the present connection if it is c.
func (l *Listener) end(c *guestConn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cur == c {
		l.replace(nil, err)
	} else if c.err == nil {
		c.err = err
	}
}

var errReplaced = errors.New("link: the host began a new connection")

// step takes one frame's header from the port and does what it says. A payload that nobody owns is passed over by the next
// step. l.pull is held.
func (l *Listener) step() {
	l.own = nil
	f, garbage, err := l.in.next()
	cur := l.present()
	if err != nil {
		l.readError(err)
		return
	}
	switch {
	case f.kind == kindSyn:
		l.syn(cur, f.epoch)
	case cur == nil || f.epoch != cur.epoch || f.kind == kindAck: // of the past
	case garbage && cur.seq > 0, f.seq != cur.seq+1:
		l.end(cur, io.ErrUnexpectedEOF)
	case f.kind == kindFin:
		l.end(cur, io.EOF)
	default:
		cur.seq = f.seq
		l.own = cur
	}
}

// syn answers the host's SYN. One of the present epoch was sent again, before our answer had arrived.
func (l *Listener) syn(cur *guestConn, epoch uint64) {
	if cur != nil && cur.epoch == epoch {
		_ = l.out.send(kindAck, epoch, nil, cur.live)
		return
	}
	c := &guestConn{l: l, epoch: epoch}
	l.mu.Lock()
	l.replace(c, errReplaced)
	l.mu.Unlock()
	if err := l.out.begin(kindAck, epoch); err != nil {
		l.fail(err)
	}
}

// readError deals with a failure to read the port. l.pull is held.
func (l *Listener) readError(err error) {
	if errors.Is(err, errHangup) {
		l.in.reset()
		if cur := l.present(); cur != nil {
			l.end(cur, io.ErrUnexpectedEOF)
		}
		return
	}
	l.fail(err)
}

// guestConn is the guest's end of a connection.
type guestConn struct {
	l     *Listener
	epoch uint64

	seq uint32 // guarded by l.pull
	err error  // guarded by l.mu; set once the connection has ended
}

func (c *guestConn) live() error {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	return c.err
}

// Read implements net.Conn.
func (c *guestConn) Read(p []byte) (int, error) {
	c.l.pull.Lock()
	defer c.l.pull.Unlock()
	for {
		if err := c.live(); err != nil {
			return 0, err
		}
		if c.l.own == c && c.l.in.left > 0 {
			break
		}
		c.l.step()
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.l.in.payload(p)
	if err != nil {
		c.l.readError(err)
		err = c.live()
	}
	return n, err
}

// Write implements net.Conn.
func (c *guestConn) Write(p []byte) (int, error) {
	var done int
	for done < len(p) {
		n := min(len(p)-done, sendPayload)
		if err := c.l.out.send(kindData, c.epoch, p[done:done+n], c.live); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// Close ends the connection. A Read under way returns with the next bytes from the host.
func (c *guestConn) Close() error {
	if c.live() != nil {
		return nil
	}
	// Not waited for: without a host on the port it would not end.
	go func() {
		_ = c.l.out.send(kindFin, c.epoch, nil, c.live)
		c.l.end(c, net.ErrClosed)
	}()
	return nil
}

// LocalAddr implements net.Conn.
func (c *guestConn) LocalAddr() net.Addr { return addr{} }

// RemoteAddr implements net.Conn.
func (c *guestConn) RemoteAddr() net.Addr { return addr{} }

// SetDeadline implements net.Conn; a port has no deadlines.
func (c *guestConn) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadDeadline implements net.Conn; a port has no deadlines.
func (c *guestConn) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetWriteDeadline implements net.Conn; a port has no deadlines.
func (c *guestConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
