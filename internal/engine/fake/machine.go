package fake

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
)

// Machine is a machine that exists only as bookkeeping.
type Machine struct {
	engine *Engine
	spec   engine.Spec
	done   chan struct{}

	mu     sync.Mutex
	exit   engine.Exit
	ended  bool
	paused chan struct{} // nil while running, closed by Resume
	host   net.Conn      // the host's end of the stream that lives
	guest  net.Conn
	held   []*os.File
	word   string // all of its memory
}

// Remember keeps a word in the machine's memory, and so in its snapshots.
func (m *Machine) Remember(word string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.word = word
}

// Recall is the word that was remembered last.
func (m *Machine) Recall() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.word
}

func newMachine(e *Engine, spec engine.Spec) (*Machine, error) {
	m := &Machine{engine: e, spec: spec, done: make(chan struct{})}
	for _, f := range spec.Inherit {
		d, err := dup(f)
		if err != nil {
			m.End(engine.Exit{})
			return nil, errdefs.Engine.Errorf("hold %s: %w", f.Name(), err)
		}
		m.held = append(m.held, d)
	}
	return m, nil
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Spec is what the machine was started with.
func (m *Machine) Spec() engine.Spec { return m.spec }

// Handle implements engine.Machine. There is no process, so PID is 0.
func (m *Machine) Handle() engine.Handle {
	return engine.Handle{
		Version: 1, Engine: m.engine.Name(), EngineVer: m.engine.opts.Caps.Version, Accel: m.spec.Accel,
		Unconfined: []string{"everything: a fake machine runs in this process"},
	}
}

// Wait implements engine.Machine.
func (m *Machine) Wait(ctx context.Context) (engine.Exit, error) {
	select {
	case <-m.done:
		return m.exit, nil
	case <-ctx.Done():
		return engine.Exit{}, ctx.Err()
	}
}

// Stop implements engine.Machine.
func (m *Machine) Stop(ctx context.Context, grace time.Duration) error {
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-m.done:
		return nil
	case <-t.C:
	case <-ctx.Done():
	}
	m.End(engine.Exit{Kind: engine.ExitStopped, Signal: "killed"})
	return nil
}

// End ends the machine: what a guest that powers off, or a signal, does to a real one. Only the first end counts.
func (m *Machine) End(exit engine.Exit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	m.ended, m.exit = true, exit
	if m.guest != nil {
		_ = m.guest.Close() // what it wrote before can still be read
	}
	if m.paused != nil {
		close(m.paused)
		m.paused = nil
	}
	for _, f := range m.held {
		_ = f.Close()
	}
	close(m.done)
}

// Emit reports an event, as the monitor would.
func (m *Machine) Emit(e engine.Event) {
	if m.spec.Events != nil {
		m.spec.Events(e)
	}
}

func (m *Machine) hangUp() {
	if m.host != nil {
		_, _ = m.host.Close(), m.guest.Close()
		m.host, m.guest = nil, nil
	}
}

// DialGuest implements engine.Machine.
func (m *Machine) DialGuest(ctx context.Context) (net.Conn, error) {
	if boot := m.engine.opts.Boot; boot != nil {
		if err := boot(ctx, m); err != nil {
			return nil, err
		}
	}
	if err := m.running(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return nil, errdefs.Unavailable.Errorf("the machine has ended (%s)", m.exit.Kind)
	}
	m.hangUp()
	host, guest, err := socketPair()
	if err != nil {
		return nil, errdefs.Engine.Errorf("make a stream to the guest: %w", err)
	}
	m.host, m.guest = host, guest
	serve := m.engine.opts.Guest
	if serve == nil {
		serve = func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }
	}
	go func() {
		defer func() { _ = guest.Close() }()
		serve(&Conn{Conn: guest, Machine: m})
	}()
	return host, nil
}

// running waits while the machine is paused.
func (m *Machine) running(ctx context.Context) error {
	for {
		m.mu.Lock()
		paused := m.paused
		m.mu.Unlock()
		if paused == nil {
			return ctx.Err()
		}
		select {
		case <-paused:
		case <-ctx.Done():
			return errdefs.Timeout.Errorf("reach the guest of a paused machine: %w", ctx.Err())
		}
	}
}

// Pause implements engine.Pauser.
func (m *Machine) Pause(context.Context) error { return m.setPaused(true) }

// Resume implements engine.Pauser.
func (m *Machine) Resume(context.Context) error { return m.setPaused(false) }

func (m *Machine) setPaused(want bool) error {
	m.mu.Lock()
	if m.ended {
		m.mu.Unlock()
		return errdefs.WrongState.Errorf("the machine has ended (%s)", m.exit.Kind)
	}
	changed := want != (m.paused != nil)
	switch {
	case !changed:
	case want:
		m.paused = make(chan struct{})
	default:
		close(m.paused)
		m.paused = nil
	}
	m.mu.Unlock()
	if changed && want {
		m.Emit(engine.Event{Kind: engine.EventPaused})
	} else if changed {
		m.Emit(engine.Event{Kind: engine.EventResumed})
	}
	return nil
}

// Conn is the guest's end of a stream. It stands still while its machine is paused.
type Conn struct {
	net.Conn
	Machine *Machine
}

func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if perr := c.Machine.running(context.Background()); perr != nil { //nolint:forbidigo // ends with the machine
		return n, perr
	}
	return n, err
}

func (c *Conn) Write(p []byte) (int, error) {
	if err := c.Machine.running(context.Background()); err != nil { //nolint:forbidigo // ends with the machine
		return 0, err
	}
	return c.Conn.Write(p)
}

func socketPair() (host, guest net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	if host, err = fileConn(fds[0]); err != nil {
		_ = unix.Close(fds[1])
		return nil, nil, err
	}
	if guest, err = fileConn(fds[1]); err != nil {
		_ = host.Close()
		return nil, nil, err
	}
	return host, guest, nil
}

func fileConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "guest stream") //nolint:gosec // a descriptor is small
	defer func() { _ = f.Close() }()
	return net.FileConn(f)
}
