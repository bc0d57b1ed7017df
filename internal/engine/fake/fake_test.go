package fake

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/engine"
)

func spec(t *testing.T) engine.Spec {
	t.Helper()
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return engine.Spec{Name: "t", CPUs: 1, MemoryMiB: 128, Accel: "tcg", Kernel: f, AgentPath: "/x"}
}

func TestScripts(t *testing.T) {
	boom := errors.New("boom")
	if _, err := New(Options{ProbeErr: boom}).Probe(t.Context()); !errors.Is(err, boom) {
		t.Errorf("Probe = %v", err)
	}
	e := New(Options{StartErr: func(engine.Spec) error { return boom }})
	if _, err := e.Start(t.Context(), spec(t)); !errors.Is(err, boom) || len(e.Machines()) != 0 {
		t.Errorf("Start = %v, %d machines", err, len(e.Machines()))
	}
	hang := New(Options{Boot: func(ctx context.Context, _ *Machine) error { <-ctx.Done(); return ctx.Err() }})
	m, err := hang.Start(t.Context(), spec(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := m.DialGuest(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("DialGuest of a guest that hangs = %v", err)
	}
}

func TestGuestAndEnd(t *testing.T) {
	e := New(Options{Guest: func(c net.Conn) {
		line, _ := bufio.NewReader(c).ReadString('\n')
		_, _ = io.WriteString(c, "got "+line)
		c.(*Conn).Machine.End(engine.Exit{Kind: engine.ExitPoweroff})
	}})
	m, err := e.Start(t.Context(), spec(t))
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.DialGuest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "x\n")
	if got, _ := bufio.NewReader(c).ReadString('\n'); got != "got x\n" {
		t.Errorf("read %q", got)
	}
	if exit, err := m.Wait(t.Context()); err != nil || exit.Kind != engine.ExitPoweroff {
		t.Errorf("Wait = %+v, %v", exit, err)
	}
	if _, err := m.DialGuest(t.Context()); err == nil {
		t.Error("dialled a machine that has ended")
	}
}
