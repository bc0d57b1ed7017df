package qemu

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/monitor"
	"github.com/smolvm/smolvm/internal/engine/qemu/qmp"
	"github.com/smolvm/smolvm/internal/guest/link"
)

const (
	// consoleBuffer is how much of the console is held; the writer decides what is kept.
	consoleBuffer = 64 << 10
	// goodbye is how long the last events and console bytes of a monitor that is gone may take to be read.
	goodbye = 2 * time.Second
)

// machine is one QEMU.
type machine struct {
	monitor.Process
	agentPath string
	report    func(engine.Event) // may be nil
	log       *slog.Logger

	ready chan struct{} // closed when qmp is set
	qmp   *qmp.Conn
	done  chan struct{} // closed when exit is set
	exit  engine.Exit

	dialing sync.Mutex // held by the one who dials
	guest   net.Conn   // the stream that lives; guarded by dialing

	mu       sync.Mutex
	stopping bool   // we kill it
	pause    bool   // we asked for a pause
	paused   bool   // and told of it
	shutdown string // the reason that QEMU gave
}

func newMachine(spec *engine.Spec, p monitor.Process, log *slog.Logger) *machine {
	return &machine{
		Process: p, agentPath: spec.AgentPath, report: spec.Events, log: log.With("monitor", p.Child.PID()),
		ready: make(chan struct{}), done: make(chan struct{}),
	}
}

// watch takes over the streams of a machine that answers, and waits for its end.
func (m *machine) watch(q *qmp.Conn, console net.Conn, to io.Writer) {
	m.qmp = q
	close(m.ready)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		if to == nil {
			to = io.Discard
		}
		// A writer that fails must not stop the guest, which waits for its console.
		buf := make([]byte, consoleBuffer)
		for n, err := 0, error(nil); err == nil; {
			n, err = console.Read(buf)
			_, _ = to.Write(buf[:n])
		}
	}()
	go m.collect(console, drained)
}

// collect waits for the monitor's end and says how it was.
func (m *machine) collect(console net.Conn, drained <-chan struct{}) {
	<-m.Child.Done()
	last := time.NewTimer(goodbye)
	defer last.Stop()
	for _, c := range []<-chan struct{}{m.qmp.Done(), drained} {
		select {
		case <-c:
		case <-last.C:
		}
	}
	_, _ = m.qmp.Close(), console.Close()
	m.mu.Lock()
	m.exit = m.ended(m.Child.State())
	m.mu.Unlock()
	close(m.done)
}

// ended says how the monitor ended. What QEMU told of a shutdown counts where its process ended well.
func (m *machine) ended(st *os.ProcessState) engine.Exit {
	exit := engine.Exit{Code: st.ExitCode(), Detail: m.Stderr.Lines(10)}
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		exit.Signal = unix.SignalName(ws.Signal())
	}
	switch {
	case exit.Signal != "" && m.stopping:
		exit.Kind = engine.ExitStopped
	case exit.Signal != "" || m.shutdown == "host-signal": // QEMU takes SIGTERM for an order
		exit.Kind = engine.ExitKilled
	case exit.Code != 0:
		exit.Kind = engine.ExitFailed
	case m.shutdown == "guest-reset":
		exit.Kind = engine.ExitReboot
	case m.shutdown == "guest-panic":
		exit.Kind = engine.ExitPanic
	case m.shutdown == "guest-shutdown":
		exit.Kind = engine.ExitPoweroff
	default:
		exit.Kind = engine.ExitFailed
	}
	return exit
}

// Handle implements engine.Machine.
func (m *machine) Handle() engine.Handle { return m.Record }

// Wait implements engine.Machine.
func (m *machine) Wait(ctx context.Context) (engine.Exit, error) {
	select {
	case <-m.done:
		return m.exit, nil
	case <-ctx.Done():
		return engine.Exit{}, ctx.Err()
	}
}

// Stop implements engine.Machine.
func (m *machine) Stop(ctx context.Context, grace time.Duration) error {
	if grace > 0 {
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-m.done:
			return nil
		case <-t.C:
		case <-ctx.Done():
		}
	}
	m.mu.Lock()
	m.stopping = true
	m.mu.Unlock()
	if err := m.Child.Signal(unix.SIGKILL); err != nil {
		return errdefs.Engine.Errorf("kill the monitor %d: %w", m.Record.PID, err)
	}
	<-m.done // soon: nothing withstands SIGKILL, and what follows is bounded
	return nil
}

// DialGuest implements engine.Machine. QEMU serves one client after another, so the former stream goes first.
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
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", m.agentPath)
	if err == nil {
		conn, err = link.Dial(ctx, conn)
	}
	select {
	case <-m.done:
		if err == nil {
			_ = conn.Close()
		}
		return nil, errdefs.Unavailable.Errorf("reach the guest: the machine has ended (%s)", m.exit.Kind)
	default:
	}
	if err != nil {
		return nil, errdefs.Unavailable.Errorf("reach the guest: %w", err)
	}
	m.guest = conn
	return conn, nil
}

// Pause implements engine.Pauser.
func (m *machine) Pause(ctx context.Context) error { return m.setPaused(ctx, true) }

// Resume implements engine.Pauser.
func (m *machine) Resume(ctx context.Context) error { return m.setPaused(ctx, false) }

func (m *machine) setPaused(ctx context.Context, want bool) error {
	select {
	case <-m.done:
		return errdefs.WrongState.Errorf("the machine has ended (%s)", m.exit.Kind)
	default:
	}
	m.mu.Lock()
	m.pause = want
	m.mu.Unlock()
	command := "cont"
	if want {
		command = "stop"
	}
	return m.qmp.Execute(ctx, command, nil, nil)
}

// BlockStats implements engine.BlockStatser.
func (m *machine) BlockStats(ctx context.Context) (map[string]engine.BlockStats, error) {
	var devices []blockDevice
	if err := m.qmp.Execute(ctx, "query-blockstats", nil, &devices); err != nil {
		return nil, err
	}
	out := map[string]engine.BlockStats{}
	for _, d := range devices {
		if id, ok := d.drive(); ok {
			out[id] = engine.BlockStats(d.Stats)
		}
	}
	return out, nil
}
