package lifecycle

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/fault"
	"github.com/smolvm/smolvm/internal/sys/lock"
	"github.com/smolvm/smolvm/internal/sys/pidfd"
)

// Connect returns the way into a running VM. The caller closes it.
func (m *Manager) Connect(ctx context.Context, id string) (Guest, error) {
	rec, err := m.settle(ctx, id)
	if err != nil {
		return nil, err
	}
	switch st := rec.State.State; st {
	case api.StateRunning:
	case api.StatePaused:
		return nil, errdefs.WrongState.Errorf("the VM %s is paused", id).WithRemedy("smolvm unpause %s", id)
	case api.StateStarting:
		return nil, errdefs.WrongState.Errorf("the VM %s is still starting", id).WithRemedy("smolvm inspect %s", id)
	default:
		return nil, errdefs.WrongState.Errorf("the VM %s is %s, not running", id, st).WithRemedy("smolvm start %s", id)
	}
	return m.dial(ctx, id)
}

// dialWait bounds the wait for a supervisor's hello.
const dialWait = 10 * time.Second

func (m *Manager) dial(ctx context.Context, id string) (*rpc.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	c, err := rpc.Dial(ctx, m.store.Dir(id), store.ControlSocket)
	if err != nil {
		return nil, err
	}
	if got := c.Hello().ID; got != id {
		_ = c.Close()
		return nil, errdefs.Internal.Errorf("the supervisor in %s answers for the VM %q", m.store.Dir(id), got)
	}
	m.log.Debug("connected", "vm", id, "supervisor", c.Hello().Build)
	return c, nil
}

// Pause stops the VM's processors.
func (m *Manager) Pause(ctx context.Context, id string) error {
	return m.control(ctx, id, api.StatePaused, (*rpc.Client).Pause)
}

// Unpause lets them go on.
func (m *Manager) Unpause(ctx context.Context, id string) error {
	return m.control(ctx, id, api.StateRunning, (*rpc.Client).Unpause)
}

// control asks a VM's supervisor for a step. One that was made already is no error.
func (m *Manager) control(ctx context.Context, id string, to api.State, ask func(*rpc.Client, context.Context) error) error {
	m.sweep()
	rec, err := m.settle(ctx, id)
	if err != nil || rec.State.State == to {
		return err
	}
	if err := store.CanFollow(id, rec.State.State, to); err != nil {
		return err
	}
	c, err := m.dial(ctx, id)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return ask(c, ctx)
}

// Stop ends a VM; its disk stays. Stopping one that is not running is no error.
func (m *Manager) Stop(ctx context.Context, id string, o StopOptions) error {
	m.sweep()
	rec, err := m.settle(ctx, id)
	if err != nil || !rec.State.State.Live() {
		return err
	}
	l, err := m.end(ctx, id, o, false)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	fault.Point("stop.ended")
	m.log.Debug("ended", "vm", id)
	_, err = m.settleEnded(ctx, id, "stopped")
	return err
}

// Remove deletes a VM with its disk. A live one is refused unless force; so is a broken one, whose state nobody knows.
func (m *Manager) Remove(ctx context.Context, id string, force bool) error {
	m.sweep()
	rec, err := m.settle(ctx, id)
	switch {
	case errors.Is(err, store.ErrNewer):
		return err
	case err != nil && (!force || !m.store.Exists(id)):
		return err
	case err == nil && rec.State.State.Live() && !force:
		return errdefs.WrongState.Errorf("the VM %s is %s", id, rec.State.State).WithRemedy("smolvm stop %s, or smolvm rm -f %s", id, id)
	}
	var l *lock.Lock
	if err == nil && rec.State.State.Live() {
		l, err = m.end(ctx, id, StopOptions{Kill: true}, true)
	} else if l, err = m.lockIdle(ctx, id, api.StateDeleting); errdefs.Is(err, errdefs.WrongState) && force {
		l, err = m.end(ctx, id, StopOptions{Kill: true}, true)
	}
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	m.log.Debug("removing", "vm", id, "dir", m.store.Dir(id))
	if !m.store.Exists(id) { // its supervisor did it
		return nil
	}
	if rec, err := m.store.Read(id); err == nil && rec.State.BootID == bootID() {
		if err := m.reap(ctx, rec.State); err != nil {
			return err
		}
	}
	fault.Point("delete.locked")
	return m.store.Discard(id)
}

func bootID() string {
	id, _ := store.HostBootID() // without one, nothing matches
	return id
}

// How long a supervisor gets: to say that it ends, over the guest's grace, and to be gone after a signal.
const (
	endMargin = 15 * time.Second
	termWait  = 5 * time.Second
)

// end ends what runs for a VM, and returns with its lock. The supervisor is asked first; one that cannot be asked gets
// signals.
func (m *Manager) end(ctx context.Context, id string, o StopOptions, remove bool) (*lock.Lock, error) {
	if o.Grace <= 0 {
		o.Grace = defaultGrace
	}
	m.log.Debug("ending", "vm", id, "grace", o.Grace, "kill", o.Kill, "remove", remove)
	limit, cancel := context.WithTimeout(ctx, o.Grace+endMargin)
	defer cancel()
	asked := m.askEnd(limit, id, rpc.StopRequest{GraceMs: o.Grace.Milliseconds(), Kill: o.Kill, Delete: remove})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if asked != nil {
		m.log.Info("the supervisor cannot be asked to end", "vm", id, "error", asked)
		sig := unix.SIGTERM
		if o.Kill {
			sig = unix.SIGKILL // its monitor goes with it
		}
		m.signal(id, sig)
	}
	wait := termWait
	if asked != nil && !o.Kill {
		wait += o.Grace
	}
	if l, err := m.waitLock(ctx, id, wait); err == nil || ctx.Err() != nil {
		return l, err
	}
	m.signal(id, unix.SIGKILL)
	l, err := m.waitLock(ctx, id, reapWait)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, errdefs.WrongState.Errorf("the VM %s does not end: another smolvm is at work on it", id).WithRemedy("smolvm inspect %s", id)
	}
	return l, err
}

// askEnd asks the supervisor; one that is only just starting has no socket yet.
func (m *Manager) askEnd(ctx context.Context, id string, req rpc.StopRequest) error {
	var err error
	for range 10 {
		var c *rpc.Client
		if c, err = m.dial(ctx, id); err == nil {
			defer func() { _ = c.Close() }()
			return c.Stop(ctx, req)
		}
		rec, rerr := m.store.Read(id)
		if rerr != nil || rec.State.State != api.StateStarting {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return err
}

// signal sends a signal to the supervisor that the record names, if it still is that.
func (m *Manager) signal(id string, sig unix.Signal) {
	rec, err := m.store.Read(id)
	if err != nil || rec.State.Supervisor == nil || rec.State.BootID != bootID() {
		return
	}
	fd, err := pidfd.Open(rec.State.Supervisor.PID, rec.State.Supervisor.StartTicks)
	if err != nil {
		return
	}
	defer func() { _ = fd.Close() }()
	_ = fd.Signal(sig)
}

// idleWait bounds the wait for a command that only looks at a VM, or settles its record.
const idleWait = 2 * time.Second

// lockIdle takes the lock of a VM that does not run, for a step to the given state.
func (m *Manager) lockIdle(ctx context.Context, id string, to api.State) (*lock.Lock, error) {
	limit, cancel := context.WithTimeout(ctx, idleWait)
	defer cancel()
	for {
		l, err := m.waitLock(limit, id, idleWait/20)
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return l, err
		}
		if rec, rerr := m.store.Read(id); rerr == nil && rec.State.State.Live() && to == api.StateStarting {
			return nil, store.CanFollow(id, rec.State.State, to)
		}
		if limit.Err() != nil {
			return nil, errdefs.WrongState.Errorf("another smolvm is at work on the VM %s", id).WithRemedy("smolvm inspect %s", id)
		}
	}
}

// waitLock waits until nothing holds the VM any more, and takes it.
func (m *Manager) waitLock(ctx context.Context, id string, limit time.Duration) (*lock.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		l, err := m.store.TryLock(id)
		if !errors.Is(err, lock.ErrHeld) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
