package firecracker

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/firecracker/fcapi"
	"github.com/smolvm/smolvm/internal/engine/firecracker/rundir"
	"github.com/smolvm/smolvm/internal/engine/snapshot"
)

const (
	// goodbye is how long what a monitor that is gone has written may take to be read.
	goodbye = 2 * time.Second
	// brief bounds a call that an event makes us do.
	brief = 5 * time.Second
)

// machine is one Firecracker.
type machine struct {
	process
	report func(engine.Event) // may be nil
	log    *slog.Logger

	dir     *rundir.Dir
	disown  func()           // gives the disk's owner back
	api     *fcapi.Client    // nil until the monitor answers
	vsock   *rundir.Socket   // nil until the device is there
	sockets []*rundir.Socket // to be closed at the end
	console *console
	metrics *metrics

	done chan struct{} // closed when exit is set
	exit engine.Exit

	dialing sync.Mutex // held by the one who dials
	guest   net.Conn   // the stream that lives; guarded by dialing

	pausing sync.Mutex // held while the state is changed, and while a snapshot is taken
	paused  bool       // guarded by pausing

	record  snapshot.Record // what its snapshots are taken from
	scratch scratch

	mu       sync.Mutex
	stopping bool // we kill it
}

// newMachine takes over what a starting has made, and waits for the monitor's end.
func newMachine(s *starting, p process, log *slog.Logger) *machine {
	m := &machine{
		process: p, report: s.spec.Events, log: log.With("monitor", p.Child.PID()), dir: s.dir, disown: s.owned.Run,
		metrics: newMetrics(s.spec.Drives), done: make(chan struct{}), record: s.record, scratch: s.scratch, paused: s.from != nil,
	}
	m.console = &console{to: s.spec.Console, halted: m.halted}
	if m.console.to == nil {
		m.console.to = io.Discard
	}
	var readers sync.WaitGroup
	readers.Go(func() { m.console.read(s.console) })
	readers.Go(func() { m.metrics.read(s.metrics) })
	readers.Go(func() { m.readLog(s.logs) })
	go m.collect(&readers, s.console, s.metrics, s.logs)
	return m
}

// collect waits for the monitor's end, says how it was, and takes away what is left of it.
func (m *machine) collect(readers *sync.WaitGroup, pipes ...*os.File) {
	<-m.Child.Done()
	for _, p := range pipes {
		_ = p.SetReadDeadline(time.Now().Add(goodbye)) // somebody else may still hold the other end
	}
	readers.Wait()
	for _, p := range pipes {
		_ = p.Close()
	}
	m.dir.Remove()
	m.disown()
	m.mu.Lock()
	m.exit = m.ended(m.Child.State())
	m.mu.Unlock()
	if m.exit.Kind == engine.ExitPanic {
		m.emit(engine.EventPanic, "")
	}
	close(m.done)
}

// ended says how the monitor ended. Exit code 0 alone proves nothing: Firecracker has it after a triple fault as well.
func (m *machine) ended(st *os.ProcessState) engine.Exit {
	exit := engine.Exit{Code: st.ExitCode(), Detail: m.words(10)}
	if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		exit.Signal = unix.SignalName(ws.Signal())
	}
	order := m.console.order()
	switch {
	case order == orderHalt && (exit.Signal == "SIGKILL" || exit.Code == 0): // we killed it for that
		exit.Kind = engine.ExitPoweroff
	case exit.Signal != "" && m.stopping:
		exit.Kind = engine.ExitStopped
	case exit.Signal != "":
		exit.Kind = engine.ExitKilled
	case exit.Code != 0:
		exit.Kind = engine.ExitFailed
		exit.Detail = strings.TrimSpace(reason(exit.Code) + "\n" + exit.Detail)
	case order == orderPanic:
		exit.Kind = engine.ExitPanic
	case order == orderReboot:
		exit.Kind = engine.ExitReboot
	default:
		exit.Kind = engine.ExitFailed
		exit.Detail = strings.TrimSpace("the virtual processor stopped without an order of the guest's kernel (a triple fault?)\n" + exit.Detail)
	}
	return exit
}

// halted ends a machine whose guest has switched itself off: its processors stand still, and would for ever.
func (m *machine) halted() {
	m.emit(engine.EventShutdown, "the guest's kernel halted")
	if err := m.Child.Signal(unix.SIGKILL); err != nil {
		m.log.Warn("end a guest that has halted", "error", err)
	}
}

// abandon ends a machine that is not to be.
func (m *machine) abandon() {
	_ = m.kill()
}

func (m *machine) kill() error {
	m.mu.Lock()
	m.stopping = true
	m.mu.Unlock()
	if err := m.Child.Signal(unix.SIGKILL); err != nil {
		return errdefs.Engine.Errorf("kill the monitor %d: %w", m.Record.PID, err)
	}
	<-m.done // soon: nothing withstands SIGKILL, and what follows is bounded
	m.release()
	return nil
}

// release gives up what only calls on the machine need.
func (m *machine) release() {
	m.dialing.Lock()
	defer m.dialing.Unlock()
	if m.guest != nil {
		_ = m.guest.Close()
		m.guest = nil
	}
	if m.api != nil {
		m.api.Close()
	}
	for _, s := range m.sockets {
		s.Close()
	}
	m.sockets = nil
	m.scratch.close()
}

func (m *machine) emit(kind engine.EventKind, detail string) {
	if m.report != nil {
		m.report(engine.Event{Kind: kind, Detail: detail})
	}
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
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return m.kill()
}

// over is the error of a call on a machine that has ended; nil while it lives.
func (m *machine) over() error {
	select {
	case <-m.done:
		return errdefs.WrongState.Errorf("the machine has ended (%s)", m.exit.Kind)
	default:
		return nil
	}
}

// Pause implements engine.Pauser.
func (m *machine) Pause(ctx context.Context) error { return m.setPaused(ctx, true) }

// Resume implements engine.Pauser.
func (m *machine) Resume(ctx context.Context) error { return m.setPaused(ctx, false) }

func (m *machine) setPaused(ctx context.Context, want bool) error {
	m.pausing.Lock()
	defer m.pausing.Unlock()
	if err := m.over(); err != nil {
		return err
	}
	if m.paused == want {
		return nil
	}
	state, kind := fcapi.StateResumed, engine.EventResumed
	if want {
		state, kind = fcapi.StatePaused, engine.EventPaused
	}
	if err := m.api.SetState(ctx, state); err != nil {
		return err
	}
	m.paused = want
	m.emit(kind, "")
	return nil
}

// BlockStats implements engine.BlockStatser.
func (m *machine) BlockStats(ctx context.Context) (map[string]engine.BlockStats, error) {
	if err := m.over(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, brief)
	defer cancel()
	next, ended := m.metrics.now()
	if ended {
		return nil, errdefs.Engine.Errorf("the monitor's metrics cannot be read any more")
	}
	if err := m.api.FlushMetrics(ctx); err != nil {
		return nil, err
	}
	select {
	case <-next:
		return m.metrics.blocks(), nil
	case <-ctx.Done():
		return nil, errdefs.Timeout.Errorf("the monitor's metrics: %w", fmt.Errorf("no line: %w", ctx.Err()))
	}
}
