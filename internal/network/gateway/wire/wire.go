// Package wire carries Ethernet frames between a guest's card and the gateway.
//
// Layer: network, below gateway. It imports none of ours.
package wire

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Wire is a card's cable. One goroutine reads; any number may write.
type Wire interface {
	// ReadFrame waits for a frame and puts it into buf. One that is longer is cut off.
	ReadFrame(buf []byte) (int, error)
	// WriteFrame writes one frame, the parts in a row, and waits until the other side has room for it.
	WriteFrame(parts [][]byte) error
	// Close ends both.
	Close() error
}

// BufferBytes is what a datagram socket of a wire should hold: a few frames of the largest size.
const BufferBytes = 1 << 20

// Datagram is a wire over one end of a pair of datagram sockets, one frame each.
type Datagram struct {
	file  *os.File
	conn  syscall.RawConn
	write sync.Mutex
}

// NewDatagram takes over fd, which is one end of the pair.
func NewDatagram(fd int) (*Datagram, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	widen(fd)
	f := os.NewFile(uintptr(fd), "wire")
	conn, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("wire: %w", err)
	}
	return &Datagram{file: f, conn: conn}, nil
}

// Pair makes the two ends.
func Pair() (ours, theirs int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("the network's socket pair: %w", err)
	}
	widen(pair[0])
	widen(pair[1])
	return pair[0], pair[1], nil
}

// widen lets a socket have more than one frame under way, as far as the host lets us.
func widen(fd int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, BufferBytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, BufferBytes)
	}
}

// ReadFrame implements Wire.
func (d *Datagram) ReadFrame(buf []byte) (n int, err error) {
	rerr := d.conn.Read(func(fd uintptr) bool {
		for {
			n, err = unix.Read(int(fd), buf)
			if err != unix.EINTR { //nolint:errorlint // a bare errno
				break
			}
		}
		return err != unix.EAGAIN //nolint:errorlint // a bare errno
	})
	if rerr != nil {
		return 0, rerr
	}
	return n, err
}

// WriteFrame implements Wire.
func (d *Datagram) WriteFrame(parts [][]byte) (err error) {
	d.write.Lock()
	defer d.write.Unlock()
	werr := d.conn.Write(func(fd uintptr) bool {
		for {
			_, err = unix.SendmsgBuffers(int(fd), parts, nil, nil, unix.MSG_NOSIGNAL)
			if err != unix.EINTR { //nolint:errorlint // a bare errno
				break
			}
		}
		return err != unix.EAGAIN && err != unix.ENOBUFS //nolint:errorlint // bare errnos
	})
	if werr != nil {
		return werr
	}
	return err
}

// Close implements Wire.
func (d *Datagram) Close() error { return d.file.Close() }
