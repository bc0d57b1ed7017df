package web

import (
	"context"
	"errors"

	"github.com/smolvm/smolvm/errdefs"
)

// Peer is who is at the other end of a connection.
type Peer struct {
	// Remote says that it came by TCP, so that nobody knows which user it is and whether it is of this host.
	Remote bool
	// PID is its process; 0 where that is not known.
	PID int
}

type (
	peerKey struct{}
	stopKey struct{}
)

// WithPeer remembers who it is for all requests of a connection.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// PeerOf tells who asks. Who is not known is remote.
func PeerOf(ctx context.Context) Peer {
	if p, ok := ctx.Value(peerKey{}).(Peer); ok {
		return p
	}
	return Peer{Remote: true}
}

// ErrStopping is the cause of the end of what UntilStop returns.
var ErrStopping = errdefs.Unavailable.Errorf("the server is stopping")

// WithStop remembers what is closed when the server begins to stop.
func WithStop(ctx context.Context, stopping <-chan struct{}) context.Context {
	return context.WithValue(ctx, stopKey{}, stopping)
}

// UntilStop is for streams that have no end of their own: they end when the server begins to stop, with ErrStopping as their
// context's cause, instead of holding it up.
func UntilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stopping, _ := ctx.Value(stopKey{}).(<-chan struct{})
	go func() {
		select {
		case <-stopping:
			cancel(ErrStopping)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// Stopped is err, or that the server is stopping where it is the reason for err.
func Stopped(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), ErrStopping) {
		return ErrStopping
	}
	return err
}
