package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/smolvm/smolvm/internal/network"
)

// idleLookup is how long a flow to a name server's port may be silent: it has done what it was for.
const idleLookup = 15 * time.Second

// udp serves the first packet of a flow. One that may not be is answered with "port unreachable", so that nobody waits.
func (g *Gateway) udp(r *udp.ForwarderRequest) bool {
	id := r.ID()
	idle := g.opts.IdleUDP
	if id.LocalPort == 53 {
		idle = min(idle, idleLookup)
	}
	f := g.admit(network.UDP, addrOf(id.LocalAddress), id.LocalPort, idle)
	if f == nil {
		return false
	}
	var wq waiter.Queue
	ep, err := r.CreateEndpoint(&wq)
	if err != nil {
		g.finish(f, errors.New("the guest's side: "+err.String()))
		return true
	}
	go func() {
		err := g.relay(f, ep, &wq)
		ep.Close()
		g.finish(f, err)
	}()
	return true
}

// relay moves packets both ways until the flow is idle for too long or refused.
func (g *Gateway) relay(f *flow, ep tcpip.Endpoint, wq *waiter.Queue) error {
	up, err := g.dialer.Dial(f.ctx, f.want)
	if err != nil {
		return err
	}
	defer func() { _ = up.Close() }()
	reset := func() { _ = up.Close() }
	if !g.establish(f, up.Addr, up.Verdict, reset, func() int { return queued(f, ep) }) {
		return nil
	}
	back := make(chan error, 1)
	go func() {
		err := backward(f, ep, up.Conn)
		f.stop(errReset("ended"))
		back <- err
	}()
	err = forward(f.ctx, f, ep, wq, up.Conn)
	_ = up.Close()
	return errors.Join(err, <-back)
}

// forward moves what the guest sends.
func forward(ctx context.Context, f *flow, ep tcpip.Endpoint, wq *waiter.Queue, up net.Conn) error {
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	for {
		n, terr := takeDatagram(f, ep, up)
		switch terr.(type) {
		case nil:
			f.out.Add(int64(n))
		case *tcpip.ErrWouldBlock:
			select {
			case <-ctx.Done():
				return nil
			case <-readable:
			}
		default:
			return errors.New("the guest's side: " + terr.String())
		}
	}
}

func takeDatagram(f *flow, ep tcpip.Endpoint, up net.Conn) (int, tcpip.Error) {
	b := f.table.buffers.Get()
	defer f.table.buffers.Put(b)
	w := tcpip.SliceWriter(b[:])
	res, err := ep.Read(&w, tcpip.ReadOptions{})
	if err != nil {
		return 0, err
	}
	f.touch()
	// What the outside cannot take is lost, as any datagram may be.
	_, _ = up.Write(b[:res.Count])
	return res.Count, nil
}

// backward moves what comes for the guest. A buffer is held only while there is something to move.
func backward(f *flow, ep tcpip.Endpoint, up net.Conn) error {
	u, ok := up.(*net.UDPConn)
	if !ok {
		return fmt.Errorf("a flow of datagrams over %T", up)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			b := f.table.buffers.Get()
			defer f.table.buffers.Put(b)
			n, err := unix.Read(int(fd), b[:])
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				return false
			}
			if rerr = err; err == nil {
				f.touch()
				f.in.Add(int64(n))
				_, _ = ep.Write(bytes.NewReader(b[:n]), tcpip.WriteOptions{})
			}
			return true
		})
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err = errors.Join(err, rerr); err != nil {
			return err
		}
	}
}
