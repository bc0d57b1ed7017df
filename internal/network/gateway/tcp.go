package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/gateway/dial"
	"github.com/smolvm/smolvm/internal/network/gateway/piece"
)

const (
	// Handshakes under way. Each has a place among the flows or is about to be refused, so that this is no limit of its own.
	maxInFlight = 1 << 14

	// Where one side has ended, the other one may be silent for so long.
	idleHalfClosed = 5 * time.Minute
	// How long a guest may take to read the rest of what it was sent.
	drainLimit = 30 * time.Second
	drainStep  = 20 * time.Millisecond
)

// tcp serves a connection that the guest asks for. The guest's handshake is answered once the outside's is done, so that it
// sees what the outside says.
func (g *Gateway) tcp(r *tcp.ForwarderRequest) {
	id := r.ID()
	f := g.admit(network.TCP, addrOf(id.LocalAddress), id.LocalPort, g.opts.IdleTCP)
	if f == nil {
		r.Complete(true)
		return
	}
	if f.kind.Load() == looked {
		g.lookInto(f, r)
		return
	}
	up, err := g.dialer.Dial(f.ctx, f.want)
	if err != nil {
		r.Complete(true)
		g.finish(f, err)
		return
	}
	defer func() { _ = up.Close() }()
	conn, ep, err := g.accept(r)
	if err != nil {
		g.finish(f, err)
		return
	}
	reset := func() {
		noLinger(up.Conn)
		_ = up.Close()
		ep.Abort()
	}
	if !g.establish(f, up.Addr, up.Verdict, reset, func() int { return queued(f, ep) }) {
		reset()
		g.finish(f, nil)
		return
	}
	var guest net.Conn = conn
	if f.kind.Load() == opaque {
		guest, err = named(f, conn, up.Verdict)
	}
	if err == nil {
		err = splice(f, guest, up.Conn)
	}
	if err != nil {
		reset()
	} else {
		drain(f.ctx, ep)
	}
	_ = conn.Close()
	g.finish(f, err)
}

// accept answers the guest's handshake.
func (g *Gateway) accept(r *tcp.ForwarderRequest) (*gonet.TCPConn, tcpip.Endpoint, error) {
	var wq waiter.Queue
	ep, err := r.CreateEndpoint(&wq)
	r.Complete(err != nil)
	if err != nil {
		return nil, nil, errors.New("the guest's handshake: " + err.String())
	}
	sizeBuffers(ep, g.flows.count())
	return gonet.NewTCPConn(&wq, ep), ep, nil
}

// establish makes a flow known as one that is connected, unless the policy has changed while it was dialled.
func (g *Gateway) establish(f *flow, addr netip.Addr, v network.Verdict, reset func(), queued func() int) bool {
	if !f.connected(addr, v.Rule, reset, queued) {
		return false
	}
	if !f.allowed(g.policy.Load()) {
		f.abort("the policy has changed")
		return false
	}
	f.touch()
	return true
}

// queued is what a connection holds in the stack. How much of its buffer for sending is full the stack does not say: while
// somebody waits for room in it, we take it for full.
func queued(f *flow, ep tcpip.Endpoint) int {
	n, _ := ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
	if f.sending.Load() {
		n += int(ep.SocketOptions().GetSendBufferSize())
	}
	return n
}

// sizeBuffers gives a connection less to send from when there are many, so that all of them together stay bounded whatever
// the guest does not read.
func sizeBuffers(ep tcpip.Endpoint, open int) {
	switch {
	case open > manyConns:
		ep.SocketOptions().SetSendBufferSize(bufMany, true)
	case open > someConns:
		ep.SocketOptions().SetSendBufferSize(bufSome, true)
	}
}

// drain lets the guest have what it was sent before the connection is forgotten.
func drain(ctx context.Context, ep tcpip.Endpoint) {
	end := time.Now().Add(drainLimit)
	for {
		switch tcp.EndpointState(ep.State()) {
		case tcp.StateFinWait1, tcp.StateClosing, tcp.StateLastAck: // our end was not confirmed
		default:
			return
		}
		if time.Now().After(end) {
			ep.Abort()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(drainStep):
		}
	}
}

// splice moves bytes both ways until both sides have ended, or one failed.
func splice(f *flow, guest, up net.Conn) error {
	result := make(chan error, 1)
	go func() {
		err := pump(f, &toGuest{guest, f}, up, &f.in)
		if err != nil { // nothing more will come: the other direction must not wait for it
			f.abort(errReset("ended by the other side: " + err.Error()))
		}
		result <- err
	}()
	err := pump(f, up, guest, &f.out)
	if err != nil {
		f.abort(errReset("ended by the guest: " + err.Error()))
	}
	return errors.Join(err, <-result)
}

// pump moves bytes from src to dst, and src's end too.
func pump(f *flow, dst, src net.Conn, count *atomic.Int64) error {
	buf := piece.Buffer{Pool: &f.table.buffers}
	defer buf.Release()
	for {
		b := buf.Next()
		n, err := src.Read(b)
		if n > 0 {
			f.touch()
			w, werr := dst.Write(b[:n])
			count.Add(int64(w))
			if werr != nil {
				return werr
			}
			f.touch()
			buf.Used(n)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				return err
			}
			f.limit.Store(min(f.limit.Load(), int64(idleHalfClosed)))
			return closeWrite(dst)
		}
	}
}

// toGuest is the guest's side of a connection, for writing: it knows when somebody waits for the guest.
type toGuest struct {
	net.Conn
	f *flow
}

func (g *toGuest) Write(b []byte) (int, error) {
	g.f.sending.Store(true)
	defer g.f.sending.Store(false)
	return g.Conn.Write(b)
}

// CloseWrite tells the guest that no more will come.
func (g *toGuest) CloseWrite() error { return closeWrite(g.Conn) }

func closeWrite(c net.Conn) error {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// noLinger makes Close a reset.
func noLinger(c net.Conn) {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = t.NetConn()
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
}

func asDenied(err error) (*dial.Denied, bool) {
	var d *dial.Denied
	ok := errors.As(err, &d)
	return d, ok
}

func asReset(err error, to *errReset) bool { return errors.As(err, to) && *to != "ended" }
