package client

import (
	"context"
	"net"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/proto"
)

// Quiesce stops everything in the guest but its agent, so that a snapshot holds nothing that runs: whoever goes on from it is
// told who it is before anything else happens there. epoch is the machine's next one. The machine itself goes on by Resumed, in
// that epoch, as its clones do by Awaken.
func (c *Client) Quiesce(ctx context.Context, epoch uint64) error {
	h, err := c.Announce(ctx, epoch)
	if err == nil && !h.GetResumePending() {
		err = errdefs.WrongState.Errorf("stop the guest for a snapshot: its epoch is %d or later already", epoch)
	}
	return err
}

// Awaken reaches a guest that was restored, and tells it who it is now; req's time is that of the call where it has none. On an
// error the machine must be killed: it may think that it is another.
func Awaken(ctx context.Context, dial Dialer, req *proto.ResumedRequest) (_ *Client, err error) {
	c, err := rejoin(ctx, dial, func(ctx context.Context, c *Client) error {
		return c.Quiesce(ctx, req.GetEpoch()) // it is, unless the snapshot was taken of one that ran
	})
	if err != nil {
		return nil, err
	}
	if req.GetWallClockNs() == 0 {
		req.WallClockNs = time.Now().UnixNano()
	}
	if err := c.Resumed(ctx, req); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Rejoin is New for a guest that was restored a moment ago.
func Rejoin(ctx context.Context, dial Dialer) (*Client, error) {
	return rejoin(ctx, dial, func(context.Context, *Client) error { return nil })
}

// How long an attempt may take, at first and at most.
const (
	firstAttempt = time.Second / 4
	lastAttempt  = 30 * time.Second
)

// rejoin connects and does what may be done twice. A restored guest's kernel drops its connections once it is told that there was a
// restore, which can be after the first new one was made; that one is then dead without a word. So no attempt is waited for long.
func rejoin(ctx context.Context, dial Dialer, do func(context.Context, *Client) error) (*Client, error) {
	for limit := firstAttempt; ; limit = min(2*limit, lastAttempt) {
		attempt, cancel := context.WithTimeout(ctx, limit)
		reached := false
		c, err := New(attempt, func(ctx context.Context) (net.Conn, error) {
			conn, err := dial(ctx)
			reached = err == nil
			return conn, err
		})
		if err == nil {
			if err = do(attempt, c); err != nil {
				_ = c.Close()
			}
		}
		late := attempt.Err() != nil
		cancel()
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil || !late && !(reached && errdefs.Is(err, errdefs.Unavailable)):
			return nil, err
		case !late: // it was hung up on
			select {
			case <-time.After(limit / 4):
			case <-ctx.Done():
				return nil, err
			}
		}
	}
}
