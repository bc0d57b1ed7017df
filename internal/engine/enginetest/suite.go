// Package enginetest is the contract of internal/engine as tests: each engine, a double as well, passes it.
//
// Layer: engine, for tests. It imports engine and errdefs.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
)

// Config says what to test.
type Config struct {
	Engine engine.Engine
	// Spec returns a new machine with a writable drive "disk" whose guest answers with Serve. The suite sets Console, Events
	// and Inherit.
	Spec func(t *testing.T) engine.Spec
	// Patience is how long a boot may take.
	Patience time.Duration
	// Flaky means that machines die here now and then for no fault of the engine's, as below an emulated processor: one that
	// dies before its guest answered is told of and tried once more.
	Flaky bool
}

// Run runs the suite.
func Run(t *testing.T, c Config) {
	tests := []struct {
		name string
		run  func(*testing.T, Config)
	}{
		{"probe", testProbe},
		{"refuses", testRefuses},
		{"life", testLife},
		{"redial", testRedial},
		{"reboot", testReboot},
		{"panic", testPanic},
		{"stop", testStop},
		{"grace", testGrace},
		{"killed", testKilled},
		{"pause", testPause},
		{"inherit", testInherit},
		{"block statistics", testBlockStats},
		{"snapshot", testSnapshot},
		{"snapshot refused", testSnapshotRefused},
		{"restore refused", testRestoreRefused},
		{"snapshot on a full disk", testSnapshotFull},
		{"killed around a snapshot", testSnapshotKilled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, c) })
	}
}

func testProbe(t *testing.T, c Config) {
	one, err := c.Engine.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	two, err := c.Engine.Probe(t.Context())
	if err != nil || one.Build != two.Build || one.Version != two.Version {
		t.Errorf("a second probe: %+v, %v; the first %+v", two, err, one)
	}
	if c.Engine.Name() == "" || one.Version == "" || one.Build == "" || one.Path == "" {
		t.Errorf("facts are missing: %q, %+v", c.Engine.Name(), one)
	}
	if n := len(one.Accels); n == 0 || one.Accels[n-1].Missing != "" {
		t.Errorf("the last accelerator must always work: %+v", one.Accels)
	}
	for _, a := range one.Accels {
		if a.Missing != "" && a.Remedy == "" {
			t.Errorf("%s: no remedy for %q", a.Name, a.Missing)
		}
	}
}

// testRefuses: what cannot work is refused before anything is changed.
func testRefuses(t *testing.T, c Config) {
	for name, change := range map[string]func(*engine.Spec){
		"no CPU":         func(s *engine.Spec) { s.CPUs = 0 },
		"no memory":      func(s *engine.Spec) { s.MemoryMiB = 0 },
		"no kernel":      func(s *engine.Spec) { s.Kernel = nil },
		"no accelerator": func(s *engine.Spec) { s.Accel = "" },
		"two lines":      func(s *engine.Spec) { s.Cmdline = "a\nb" },
		"drive's id":     func(s *engine.Spec) { s.Drives[0].ID = "a,b" },
		"drive twice":    func(s *engine.Spec) { s.Drives = append(s.Drives, s.Drives[0]) },
	} {
		spec := c.Spec(t)
		change(&spec)
		if m, err := c.Engine.Start(t.Context(), spec); errdefs.ClassOf(err) != errdefs.Invalid {
			t.Errorf("%s: %v, %v; want an error of class invalid", name, m, err)
			if m != nil {
				_ = m.Stop(t.Context(), 0)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if m, err := c.Engine.Start(ctx, c.Spec(t)); err == nil {
		_ = m.Stop(t.Context(), 0)
		t.Error("started although its call had ended")
	}
}

func testLife(t *testing.T, c Config) {
	m := start(t, c)
	h := m.Handle()
	if h.Engine != c.Engine.Name() || h.EngineVer == "" || h.Accel == "" || h.PID > 0 && h.StartTicks == 0 {
		t.Errorf("handle %+v", h)
	}
	s := m.dial(t)
	s.want(t, "echo first", "first")
	long := strings.Repeat("x", maxLine-10)
	s.want(t, "echo "+long, long)
	s.want(t, "print on the console", "ok")
	brief, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := m.Wait(brief); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait of a machine that runs: %v", err)
	}
	s.tell(t, "poweroff")
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { m.end(t, engine.ExitPoweroff) })
	}
	all.Wait()
	if !strings.Contains(m.console.String(), "on the console") {
		t.Error("the console lacks what the guest printed")
	}
	if _, err := m.DialGuest(t.Context()); err == nil {
		t.Error("dialled a machine that has ended")
	}
	if _, err := s.r.ReadByte(); err == nil {
		t.Error("the stream outlives its machine")
	}
	if err := m.Stop(t.Context(), time.Minute); err != nil {
		t.Errorf("Stop of a machine that has ended: %v", err)
	}
	if h.PID > 0 {
		if _, err := os.Stat(filepath.Join("/proc", fmt.Sprint(h.PID))); err == nil {
			t.Errorf("process %d is still there", h.PID)
		}
	}
}

// testRedial: a new stream begins at its first byte, and the former one is over.
func testRedial(t *testing.T, c Config) {
	m := start(t, c)
	former := m.dial(t)
	former.want(t, "echo a", "a")
	if _, err := io.WriteString(former, "echo half of a li"); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		s := m.dial(t)
		s.want(t, fmt.Sprintf("echo %d", i), fmt.Sprint(i))
		if _, err := former.ask("echo b"); err == nil {
			t.Fatal("the former stream still answers")
		}
		former = s
	}
}

func testReboot(t *testing.T, c Config) {
	m := start(t, c)
	m.dial(t).tell(t, "reboot")
	m.end(t, engine.ExitReboot)
}

// testPanic: a machine without a device for it can only tell a panic as the reset that follows.
func testPanic(t *testing.T, c Config) {
	m := start(t, c)
	m.dial(t).tell(t, "panic")
	if exit := m.end(t, engine.ExitPanic, engine.ExitReboot); exit.Kind == engine.ExitReboot && !strings.Contains(m.console.String(), "Kernel panic") {
		t.Error("neither exit nor console tell of the panic")
	}
}

func testStop(t *testing.T, c Config) {
	m := start(t, c) // it may still be booting
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := m.Stop(t.Context(), 0); err != nil {
				t.Errorf("Stop: %v", err)
			}
		})
	}
	all.Wait()
	m.end(t, engine.ExitStopped)
}

// testGrace: an end that is under way is waited for; one that is not is forced.
func testGrace(t *testing.T, c Config) {
	m := start(t, c)
	m.dial(t).tell(t, "poweroff")
	if err := m.Stop(t.Context(), c.Patience); err != nil {
		t.Fatal(err)
	}
	m.end(t, engine.ExitPoweroff)

	m = start(t, c)
	m.dial(t).want(t, "echo up", "up")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Stop(ctx, time.Hour); err != nil { // the call's end is the end of the patience, not of the duty
		t.Fatal(err)
	}
	m.end(t, engine.ExitStopped)
}

func testKilled(t *testing.T, c Config) {
	m := start(t, c)
	pid := m.Handle().PID
	if pid == 0 {
		t.Skip("no process")
	}
	dialling := make(chan error, 1)
	go func() {
		_, err := m.DialGuest(t.Context())
		dialling <- err
	}()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if exit := m.end(t, engine.ExitKilled); exit.Signal != "SIGKILL" {
		t.Errorf("the signal is %q", exit.Signal)
	}
	select {
	case err := <-dialling:
		if err == nil {
			t.Error("reached the guest of a dead monitor")
		}
	case <-time.After(c.Patience):
		t.Error("a dial waits for a dead monitor")
	}
}

func testPause(t *testing.T, c Config) {
	m := start(t, c)
	p, ok := m.Machine.(engine.Pauser)
	if !ok {
		t.Skip("it cannot pause")
	}
	s := m.dial(t)
	s.want(t, "echo up", "up")
	for range 2 { // a second time is no error
		if err := p.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	m.event(t, engine.EventPaused)
	answered := make(chan error, 1)
	go func() {
		got, err := s.ask("echo late")
		if err == nil && got != "late" {
			err = fmt.Errorf("answered %q", got)
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Errorf("a paused guest answered (%v)", err)
	case <-time.After(300 * time.Millisecond):
	}
	for range 2 {
		if err := p.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	m.event(t, engine.EventResumed)
	if err := <-answered; err != nil {
		t.Errorf("after the pause: %v", err)
	}
	if err := m.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Pause(t.Context()); err == nil {
		t.Error("paused a machine that has ended")
	}
}

// testInherit: the monitor holds what it inherits until it ends, and not a moment longer.
func testInherit(t *testing.T, c Config) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // a test's own file
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	m := start(t, c, func(s *engine.Spec) { s.Inherit = []*os.File{f} })
	_ = f.Close()
	other, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // a test's own file
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("the lock of a machine that runs: %v", err)
	}
	if err := m.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("the lock after the end: %v", err)
	}
}

func testBlockStats(t *testing.T, c Config) {
	m := start(t, c)
	b, ok := m.Machine.(engine.BlockStatser)
	if !ok {
		t.Skip("it does not count")
	}
	s := m.dial(t)
	stats := func() engine.BlockStats {
		all, err := b.BlockStats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		st, ok := all["disk"]
		if !ok {
			t.Fatalf("no drive of ours in %v", all)
		}
		return st
	}
	if st := stats(); st.WriteBytes != 0 || st.Writes != 0 {
		t.Errorf("before any write: %+v", st)
	}
	s.want(t, "write disk 2", "ok")
	if st := stats(); st.WriteBytes != 2<<20 {
		t.Errorf("after 2 MiB: %+v", st)
	}
}
