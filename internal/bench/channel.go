package bench

import (
	"context"
	"net"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/link"
	"github.com/smolvm/smolvm/internal/sys/undo"
)

// channels are three machines side by side: a VM as users get it, the same machine without a supervisor, and one whose
// agent answers on the bare port. What is compared is measured on them in turn.
type channels struct {
	vm    *vm
	agent *client.Client
	raw   *link.Raw
	undo  undo.Stack
}

func (c *channels) close() { c.undo.Run() }

func (o *Options) openChannels(ctx context.Context) (_ *channels, err error) {
	c := &channels{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.vm, err = o.startVM(ctx); err != nil {
		return nil, err
	}
	c.undo.Add(func() { o.removeVM(ctx, c.vm) })
	accel, err := o.accelerator(ctx, c.vm)
	if err != nil {
		return nil, err
	}
	kit, err := o.bareKit(ctx, accel)
	if err != nil {
		return nil, err
	}
	b, err := o.startBare(ctx, kit, "")
	if err != nil {
		return nil, err
	}
	c.undo.Add(b.Close)
	if c.agent, err = client.New(ctx, b.DialGuest); err != nil {
		return nil, err
	}
	c.undo.Add(func() { _ = c.agent.Close() })
	r, err := o.startBare(ctx, kit, link.RawParam)
	if err != nil {
		return nil, err
	}
	c.undo.Add(r.Close)
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", r.AgentPath)
	if err != nil {
		return nil, errdefs.Unavailable.Errorf("the bare port: %w", err)
	}
	c.undo.Add(func() { _ = conn.Close() })
	c.raw = link.NewRaw(conn)
	return c, c.awaitRaw(ctx, conn)
}

// awaitRaw waits until the bare port answers: what is sent to a guest that still boots may be lost or come late, so it
// sends single requests until one answer came, and then takes the late ones.
func (c *channels) awaitRaw(ctx context.Context, conn net.Conn) error {
	deadline := time.Now().Add(2 * time.Minute)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		if c.raw.Echo([]byte{1}) == nil {
			return c.drain(conn)
		}
	}
	return errdefs.Timeout.Errorf("the bare port did not answer")
}

func (c *channels) drain(conn net.Conn) error {
	buf := make([]byte, 256)
	for {
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		if _, err := conn.Read(buf); err != nil {
			return conn.SetDeadline(time.Time{})
		}
	}
}
