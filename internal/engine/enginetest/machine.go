package enginetest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/engine"
)

// machine is one under test.
type machine struct {
	engine.Machine
	spec     engine.Spec
	patience time.Duration
	console  *buffer
	events   chan engine.Event
}

// buffer is a console that can be read while it is written.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start starts a machine that is gone when the test ends.
func start(t *testing.T, c Config, change ...func(*engine.Spec)) *machine {
	t.Helper()
	return produce(t, c, c.Engine.Start, change...)
}

// produce makes a machine, by how, that is gone when the test ends.
func produce(t *testing.T, c Config, how func(context.Context, engine.Spec) (engine.Machine, error), change ...func(*engine.Spec)) *machine {
	t.Helper()
	try := func() (*machine, error) {
		spec := c.Spec(t)
		m := &machine{patience: c.Patience, console: &buffer{}, events: make(chan engine.Event, 64)}
		spec.Console = m.console
		spec.Events = func(e engine.Event) { m.events <- e }
		for _, f := range change {
			f(&spec)
		}
		// The call's context ends before the machine does.
		ctx, cancel := context.WithTimeout(t.Context(), c.Patience)
		defer cancel()
		var err error
		m.spec = spec
		m.Machine, err = how(ctx, spec)
		if err == nil && c.Flaky {
			err = answers(ctx, m)
		}
		return m, err
	}
	m, err := try()
	if err != nil && c.Flaky {
		t.Logf("TRIED ONCE MORE: a machine that died, which happens here: %v", err)
		if m.Machine != nil {
			_ = m.Stop(t.Context(), 0)
		}
		m, err = try()
	}
	t.Cleanup(func() {
		if m.Machine == nil {
			return
		}
		if err := m.Stop(context.WithoutCancel(t.Context()), 0); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if t.Failed() {
			t.Logf("console:\n%s", m.console)
		}
	})
	if err != nil {
		t.Fatalf("no machine: %v", err)
	}
	return m
}

// answers waits for the guest. A connection may be dead, as engine.Restorer has it, so that each has its own time.
func answers(ctx context.Context, m *machine) error {
	for limit := time.Second; ; limit *= 2 {
		conn, err := m.DialGuest(ctx)
		if err != nil {
			return err
		}
		until := time.Now().Add(limit)
		if d, ok := ctx.Deadline(); ok && d.Before(until) {
			until = d
		}
		_ = conn.SetDeadline(until)
		got, err := (&stream{conn, bufio.NewReader(conn)}).ask("echo up")
		_ = conn.Close()
		switch {
		case err == nil && got != "up":
			return fmt.Errorf("the guest answers %q", got)
		case err == nil || ctx.Err() != nil:
			return err
		}
		time.Sleep(min(limit/4, time.Second)) // it may have been hung up on
	}
}

// stream is a line each way.
type stream struct {
	net.Conn
	r *bufio.Reader
}

func (m *machine) dial(t *testing.T) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), m.patience)
	defer cancel()
	conn, err := m.DialGuest(ctx)
	if err != nil {
		t.Fatalf("DialGuest: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &stream{conn, bufio.NewReader(conn)}
}

// redial is dial after a snapshot or a restore, when a connection may be dead.
func (m *machine) redial(t *testing.T) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), m.patience)
	defer cancel()
	if err := answers(ctx, m); err != nil {
		t.Fatalf("DialGuest: %v", err)
	}
	return m.dial(t)
}

func (s *stream) ask(format string, args ...any) (string, error) {
	if _, err := fmt.Fprintf(s, format+"\n", args...); err != nil {
		return "", err
	}
	line, err := s.r.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

func (s *stream) want(t *testing.T, request, answer string) {
	t.Helper()
	if got, err := s.ask("%s", request); got != answer || err != nil {
		t.Fatalf("%s: %q, %v; want %q", request, got, err, answer)
	}
}

// tell asks for what ends the machine: an answer may come or not.
func (s *stream) tell(t *testing.T, request string) {
	t.Helper()
	if _, err := fmt.Fprintln(s, request); err != nil {
		t.Fatalf("%s: %v", request, err)
	}
}

// end waits for the machine's end.
func (m *machine) end(t *testing.T, want ...engine.ExitKind) engine.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), m.patience)
	defer cancel()
	exit, err := m.Wait(ctx)
	if err != nil {
		t.Fatalf("Wait: %v", err)
	}
	if !slices.Contains(want, exit.Kind) {
		t.Errorf("it ended as %+v, want %v", exit, want)
	}
	return exit
}

// event waits for an event of a kind; others may come before it.
func (m *machine) event(t *testing.T, kind engine.EventKind) engine.Event {
	t.Helper()
	limit := time.After(m.patience)
	for {
		select {
		case e := <-m.events:
			if e.Kind == kind {
				return e
			}
		case <-limit:
			t.Fatalf("no event %q", kind)
		}
	}
}
