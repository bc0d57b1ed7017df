package link

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// hostConn is the host's end of a connection.
type hostConn struct {
	net.Conn // the channel
	epoch    uint64
	out      *sender

	readMu sync.Mutex
	in     *scanner
	seq    uint32
	err    error // how reading ended

	closed atomic.Bool
}

// Dial makes a connection with a fresh epoch on conn, which leads to the guest's port and which it takes over: it is closed
// on error. The guest may come later and bytes may be lost before it does; Dial goes on until ctx ends.
func Dial(ctx context.Context, conn net.Conn) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	h := &hostConn{Conn: conn, epoch: newEpoch(), in: newScanner(conn), out: newSender(conn)}
	err := h.shake()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("link: no answer from the guest's port: %w", err)
	}
	return h, nil
}

func newEpoch() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:]) | 1
}

// shake sends SYN until the guest's ACK of our epoch is there.
func (h *hostConn) shake() error {
	answered := make(chan struct{})
	sent := make(chan error, 1)
	go func() { sent <- h.sendSyns(answered) }()
	err := h.awaitAck()
	close(answered)
	_ = h.Conn.SetWriteDeadline(time.Unix(1, 0)) // a full channel must not hold us
	<-sent                                       //nolint:errcheck // it only says that we ended it
	if err != nil {
		return err
	}
	return h.Conn.SetWriteDeadline(time.Time{})
}

// sendSyns sends SYN, at first quickly. A guest that still waits for the rest of a former connection's frame would take it
// for that, so that now and then a frame's worth of nothing goes before it.
func (h *hostConn) sendSyns(answered <-chan struct{}) error {
	const longest = 200 * time.Millisecond
	wait := 20 * time.Millisecond
	for try := 1; ; try++ {
		if try > 1 && try&(try-1) == 0 {
			if _, err := h.Conn.Write(make([]byte, maxPayload)); err != nil {
				return err
			}
		}
		if err := h.out.begin(kindSyn, h.epoch); err != nil {
			return err
		}
		select {
		case <-answered:
			return nil
		case <-time.After(wait):
		}
		wait = min(wait*3/2, longest)
	}
}

// awaitAck passes over everything but our epoch's ACK. It trusts no length of another epoch: what follows may be lost.
func (h *hostConn) awaitAck() error {
	for {
		f, _, err := h.in.next()
		if err != nil {
			return err
		}
		if f.epoch == h.epoch && f.kind == kindAck {
			return nil
		}
		h.in.left = 0
	}
}

// Read implements net.Conn.
func (h *hostConn) Read(p []byte) (int, error) {
	h.readMu.Lock()
	defer h.readMu.Unlock()
	for h.err == nil && h.in.left == 0 {
		f, garbage, err := h.in.next()
		switch {
		case err != nil:
			return 0, h.readError(err)
		case garbage || f.epoch != h.epoch:
			h.err = fmt.Errorf("link: out of step: %w", io.ErrUnexpectedEOF)
		case f.kind == kindAck: // of a SYN that was sent again
		case f.kind == kindFin:
			h.err = io.EOF
		case f.kind != kindData || f.seq != h.seq+1:
			h.err = fmt.Errorf("link: bytes were lost: %w", io.ErrUnexpectedEOF)
		default:
			h.seq = f.seq
		}
	}
	if h.err != nil {
		return 0, h.err
	}
	n, err := h.in.payload(p)
	if err != nil {
		err = h.readError(err)
	}
	return n, err
}

// readError keeps what cannot pass; a deadline can.
func (h *hostConn) readError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if err == io.EOF { //nolint:errorlint // exactly that: the channel ended without FIN
		err = io.ErrUnexpectedEOF
	}
	h.err = err
	return err
}

// Write implements net.Conn.
func (h *hostConn) Write(p []byte) (int, error) {
	var done int
	for done < len(p) || len(p) == 0 {
		n := min(len(p)-done, sendPayload)
		if err := h.out.send(kindData, h.epoch, p[done:done+n], h.live); err != nil {
			return done, err
		}
		if done += n; len(p) == 0 {
			break
		}
	}
	return done, nil
}

func (h *hostConn) live() error {
	if h.closed.Load() {
		return net.ErrClosed
	}
	return nil
}

// Close tells the guest, as far as the channel takes it at once, and closes the channel.
func (h *hostConn) Close() error {
	if h.closed.Swap(true) {
		return nil
	}
	_ = h.Conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_ = h.out.send(kindFin, h.epoch, nil, func() error { return nil })
	return h.Conn.Close()
}
