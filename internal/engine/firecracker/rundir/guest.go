package rundir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/smolvm/smolvm/internal/guest/link"
)

const (
	// answerTime is how long one attempt waits. A guest without the driver never answers; one whose driver comes up
	// meanwhile answers the attempt that waits.
	answerTime = 2 * time.Second
	// Between attempts, which fail at once as long as the driver is there and nobody listens. There is no event to wait
	// for: only the guest knows that its agent listens.
	firstRetry = 2 * time.Millisecond
	lastRetry  = 50 * time.Millisecond
	// maxAnswer bounds the monitor's answer, "OK " and a port.
	maxAnswer = 32
)

// DialGuest tries until the guest's agent answers or ctx ends.
func DialGuest(ctx context.Context, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		attempt, cancel := context.WithTimeout(ctx, answerTime)
		conn, err := connect(attempt, dial)
		cancel()
		if err == nil {
			return conn, nil
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("%w (the last attempt: %w)", context.Cause(ctx), err)
		}
	}
}

// connect makes one attempt: Firecracker connects who asks it to, and says so in a line.
func connect(ctx context.Context, dial func(context.Context) (net.Conn, error)) (_ net.Conn, err error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	if _, err := fmt.Fprintf(conn, "CONNECT %d\n", link.VsockPort); err != nil {
		return nil, err
	}
	if err := readOK(conn); err != nil {
		return nil, err
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return conn, nil
}

// readOK reads the answer's line and not a byte more: what follows is the guest's.
func readOK(r io.Reader) error {
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, b); errors.Is(err, io.EOF) {
			return errors.New("nobody listens in the guest")
		} else if err != nil {
			return err
		}
		if b[0] == '\n' {
			break
		}
		if line = append(line, b[0]); len(line) > maxAnswer {
			return fmt.Errorf("the monitor answers %q", line)
		}
	}
	if !strings.HasPrefix(string(line), "OK ") {
		return fmt.Errorf("the monitor answers %q", line)
	}
	return nil
}
