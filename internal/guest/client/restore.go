package client

import (
	"context"
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
	c, err := New(ctx, dial)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	if err := c.Quiesce(ctx, req.GetEpoch()); err != nil { // it is, unless the snapshot was taken of one that ran
		return nil, err
	}
	if req.GetWallClockNs() == 0 {
		req.WallClockNs = time.Now().UnixNano()
	}
	if err := c.Resumed(ctx, req); err != nil {
		return nil, err
	}
	return c, nil
}
