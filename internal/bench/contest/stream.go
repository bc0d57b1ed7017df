package contest

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/peer"
)

// Serve sends size bytes, takes what comes, or greets, as the first byte of a connection asks: d, u, or any other.
func Serve(l net.Listener, size int) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go serve(c, size)
	}
}

func serve(c net.Conn, size int) {
	defer func() { _ = c.Close() }()
	var kind [1]byte
	if _, err := io.ReadFull(c, kind[:]); err != nil {
		return
	}
	switch kind[0] {
	case 'd':
		b := make([]byte, 1<<20)
		for range size / len(b) {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	case 'u':
		_, _ = io.Copy(io.Discard, c)
		_, _ = c.Write(kind[:])
	default:
		_, _ = c.Write(kind[:])
	}
}

// stream moves size bytes over one connection, down or up, and returns the seconds that it took.
func stream(ctx context.Context, p *peer.Peer, port string, kind byte, size int) (float64, error) {
	c, err := p.Dial(ctx, port)
	if err != nil {
		return 0, errdefs.Network.Errorf("the kernel peer: %w", err)
	}
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if _, err := c.Write([]byte{kind}); err != nil {
		return 0, errdefs.Network.Errorf("the kernel peer: %w", err)
	}
	begun := time.Now()
	move := take
	if kind == 'u' {
		move = send
	}
	err = move(c, size)
	return time.Since(begun).Seconds(), err
}

// take takes all that comes.
func take(c net.Conn, size int) error {
	b, got := make([]byte, 1<<20), 0
	for {
		n, err := c.Read(b)
		got += n
		switch {
		case got == size:
			return nil
		case err != nil:
			return errdefs.Network.Errorf("the kernel peer got %d bytes: %w", got, err)
		}
	}
}

// send sends, and waits until that is said to be there.
func send(c net.Conn, size int) error {
	b := make([]byte, 1<<20)
	for range size / len(b) {
		if _, err := c.Write(b); err != nil {
			return errdefs.Network.Errorf("the kernel peer sends: %w", err)
		}
	}
	err := c.(interface{ CloseWrite() error }).CloseWrite()
	if err == nil {
		_, err = io.ReadFull(c, b[:1])
	}
	if err != nil {
		return fmt.Errorf("the kernel peer sent all: %w", err)
	}
	return nil
}
