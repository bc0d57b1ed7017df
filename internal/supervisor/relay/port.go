package relay

import (
	"context"
	"net"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/excerpt"
)

// Forward joins a connection with a port of the guest until both have ended, and closes it. seen is told of the bytes, those
// to the guest and those from it.
func (r *Relay) Forward(ctx context.Context, port int, conn *net.TCPConn, seen func(in, out int)) error {
	guest, err := r.agent(ctx)
	if err != nil {
		_ = conn.SetLinger(0) // it was taken before we knew: now it breaks
		_ = conn.Close()
		return err
	}
	if err = guest.JoinPort(ctx, port, conn, func(received, sent int) { seen(sent, received) }); err != nil {
		return errdefs.ClassOf(err).Errorf("%s", excerpt.Printable(excerpt.Cut(err.Error(), 300)))
	}
	return nil
}

// waitPort answers when something in the guest listens on a port.
func (r *Relay) waitPort(ctx context.Context, req rpc.WaitPortRequest) (rpc.Nothing, error) {
	if req.Port < 1 || req.Port > 65535 {
		return rpc.Nothing{}, errdefs.Invalid.Errorf("port: %d is not within 1 to 65535", req.Port)
	}
	guest, err := r.agent(ctx)
	if err == nil {
		err = r.lost(guest.WaitPort(ctx, req.Port))
	}
	return rpc.Nothing{}, err
}
