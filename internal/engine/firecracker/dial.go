package firecracker

import (
	"context"
	"net"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine/firecracker/rundir"
)

// DialGuest implements engine.Machine. Each connection is its own, so the former one is ended here.
func (m *machine) DialGuest(ctx context.Context) (net.Conn, error) {
	m.dialing.Lock()
	defer m.dialing.Unlock()
	if m.guest != nil {
		_ = m.guest.Close()
		m.guest = nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-m.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	conn, err := rundir.DialGuest(ctx, m.vsock.Dial)
	if m.over() != nil {
		if err == nil {
			_ = conn.Close()
		}
		return nil, errdefs.Unavailable.Errorf("reach the guest: the machine has ended (%s)", m.exit.Kind)
	}
	if err != nil {
		return nil, errdefs.Unavailable.Errorf("reach the guest: %w", err)
	}
	m.guest = conn
	return conn, nil
}
