package lifecycle

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/store"
)

// TestLife goes through the whole life of a VM.
func TestLife(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	box, err := m.Create(ctx, api.Config{ID: "one", DiskMiB: 256, Env: map[string]string{"A": "secret"}}, CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if box.State != api.StateCreated || box.Owner != api.OwnerKeep || box.Config.Env["A"] != "***" || box.Config.CPUs != 1 {
		t.Errorf("created as %+v", box)
	}
	if _, err := m.Connect(ctx, "one"); !errdefs.Is(err, errdefs.WrongState) || !strings.Contains(errdefs.RemedyOf(err), "smolvm start one") {
		t.Errorf("Connect before the start: %v", err)
	}
	if box, err = m.Start(ctx, "one", nil); err != nil {
		t.Fatal(err)
	}
	if box.State != api.StateRunning || box.SupervisorPID <= 0 || box.Engine != "fake 1.0" || !strings.HasPrefix(box.Accelerator, "tcg (emul") || box.StartedAt == nil {
		t.Errorf("started as %+v", box)
	}
	if _, err := m.Start(ctx, "one", nil); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("a second start: %v", err)
	}
	if out, res := run(t, m, "one", "sh", "-c", "echo $A; exit 3"); out != "secret\n" || res.ExitCode != 3 {
		t.Errorf("the command printed %q and ended with %+v", out, res)
	}
	if err := m.Pause(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	state(t, m, "one", api.StatePaused, "")
	if _, err := m.Connect(ctx, "one"); !strings.Contains(errdefs.RemedyOf(err), "unpause") {
		t.Errorf("Connect to a paused VM: %v", err)
	}
	if err := m.Unpause(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(ctx, "one", false); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("Remove of a running VM: %v", err)
	}
	if err := m.Pause(ctx, "one"); err != nil { // an orderly end wakes it
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Stop(ctx, "one", StopOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	stopped := state(t, m, "one", api.StateStopped, "stopped")
	if stopped.SupervisorPID != 0 {
		t.Errorf("after the stop: %+v", stopped)
	}
	eventually(t, time.Second, "the supervisor's end", func() bool { return !alive(box.SupervisorPID) })
	if _, err := m.Start(ctx, "one", nil); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(ctx, "one", true); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Inspect(ctx, "one", false); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("after Remove: %v", err)
	}
}

// TestEnds: how a VM is found after each kind of end, and that it starts again.
func TestEnds(t *testing.T) {
	m := rig(t, "")
	started(t, m, "ends")
	tests := []struct {
		name   string
		end    func(t *testing.T, box api.Sandbox)
		state  api.State
		reason string
	}{
		{"kill of the supervisor", func(t *testing.T, box api.Sandbox) { signal(t, box.SupervisorPID, unix.SIGKILL) }, api.StateError, "supervisor is gone"},
		{"SIGTERM of the supervisor", func(t *testing.T, box api.Sandbox) { signal(t, box.SupervisorPID, unix.SIGTERM) }, api.StateStopped, "terminated"},
		{"kill by stop", func(t *testing.T, _ api.Sandbox) {
			if err := m.Stop(t.Context(), "ends", StopOptions{Kill: true}); err != nil {
				t.Error(err)
			}
		}, api.StateStopped, "stopped"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			box := state(t, m, "ends", api.StateRunning, "")
			tt.end(t, box)
			eventually(t, 20*time.Second, "the supervisor's end", func() bool { return !alive(box.SupervisorPID) })
			state(t, m, "ends", tt.state, tt.reason)
			if _, err := m.Start(t.Context(), "ends", nil); err != nil {
				t.Fatal(err)
			}
			if out, _ := run(t, m, "ends", "echo", "again"); out != "again\n" {
				t.Errorf("after the new start it says %q", out)
			}
		})
	}
	events, err := m.Events(t.Context(), "ends")
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, e := range events {
		if e.Type == "state" {
			states = append(states, string(e.State))
		}
	}
	want := "starting running error starting running stopping stopped starting running stopping stopped starting running"
	if got := strings.Join(states, " "); got != want {
		t.Errorf("events tell %q, want %q", got, want)
	}
}

func signal(t *testing.T, pid int, sig unix.Signal) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("no such process: %d", pid)
	}
	if err := unix.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// TestStopBySignal: a supervisor that cannot be asked still ends.
func TestStopBySignal(t *testing.T) {
	m := rig(t, "")
	started(t, m, "deaf")
	if err := os.Remove(m.store.Path("deaf", store.ControlSocket)); err != nil {
		t.Fatal(err)
	}
	if err := m.Stop(t.Context(), "deaf", StopOptions{}); err != nil {
		t.Fatal(err)
	}
	state(t, m, "deaf", api.StateStopped, "terminated")
	box, err := m.Start(t.Context(), "deaf", nil)
	if err != nil {
		t.Fatal(err)
	}
	// One that does not even hear signals.
	if err := os.Remove(m.store.Path("deaf", store.ControlSocket)); err != nil {
		t.Fatal(err)
	}
	signal(t, box.SupervisorPID, unix.SIGSTOP)
	if err := m.Remove(t.Context(), "deaf", true); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Second, "the supervisor's end", func() bool { return !alive(box.SupervisorPID) })
}

// TestStubborn: a guest that does not power off is killed after its grace.
func TestStubborn(t *testing.T) {
	m := rig(t, "stubborn")
	started(t, m, "mule")
	if err := m.Stop(t.Context(), "mule", StopOptions{Grace: 300 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	state(t, m, "mule", api.StateStopped, "was killed")
}

// TestFailedStart: what is said and left when a start fails.
func TestFailedStart(t *testing.T) {
	tests := []struct {
		script string
		class  errdefs.Class
		says   []string
	}{
		{"silent", errdefs.Timeout, []string{"no hello", "300ms", "one\nlast\\x1b[31m words"}},
		{"panics", errdefs.Engine, []string{"panicked: VFS: no root"}},
		{"no-start", errdefs.Internal, []string{"does not want to"}},
	}
	for _, tt := range tests {
		t.Run(tt.script, func(t *testing.T) {
			m := rig(t, tt.script)
			_, err := m.Create(t.Context(), api.Config{ID: "bad", DiskMiB: 256, BootTimeoutMs: 300}, CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = m.Start(t.Context(), "bad", nil)
			if !errdefs.Is(err, tt.class) {
				t.Errorf("class %s of %v", errdefs.ClassOf(err), err)
			}
			for _, text := range tt.says {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not say %q: %v", text, err)
				}
			}
			state(t, m, "bad", api.StateError, tt.says[0])
		})
	}
}

// TestLaunchLeavesNothing: create and start in one call.
func TestLaunchLeavesNothing(t *testing.T) {
	m := rig(t, "no-start")
	if _, _, err := m.Launch(t.Context(), api.Config{ID: "bad", DiskMiB: 256}, CreateOptions{}); err == nil {
		t.Fatal("it started")
	}
	if m.store.Exists("bad") {
		t.Error("it is still there")
	}
	t.Setenv(scriptVar, "")
	box, guest, err := m.Launch(t.Context(), api.Config{ID: "good", DiskMiB: 256}, CreateOptions{Owner: api.OwnerClient})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = guest.Close() }()
	if _, err := guest.Ping(t.Context()); err != nil || box.State != api.StateRunning {
		t.Errorf("%+v, %v", box, err)
	}
}

// TestCancelledStart: who is interrupted leaves no half of a start.
func TestCancelledStart(t *testing.T) {
	m := rig(t, "silent")
	create(t, m, "slow", CreateOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan struct{}, 10)
	go func() {
		<-told
		cancel()
	}()
	_, err := m.Start(ctx, "slow", func(api.Progress) { told <- struct{}{} })
	if err == nil || ctx.Err() == nil {
		t.Errorf("Start: %v", err)
	}
	state(t, m, "slow", api.StateStopped, "while it was starting")
}

// TestCancelledEarly: a supervisor that is ended before it can write that down was ended all the same, and did not fail.
func TestCancelledEarly(t *testing.T) {
	m := rig(t, "late")
	create(t, m, "slow", CreateOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := m.Start(ctx, "slow", nil); err == nil {
		t.Error("it started")
	}
	state(t, m, "slow", api.StateStopped, "while it was starting")
}

// TestStopWhileStarting: stop and rm reach a VM whose guest does not answer yet.
func TestStopWhileStarting(t *testing.T) {
	m := rig(t, "silent")
	create(t, m, "slow", CreateOptions{})
	done := make(chan error, 1)
	go func() {
		_, err := m.Start(t.Context(), "slow", nil)
		done <- err
	}()
	eventually(t, 10*time.Second, "starting", func() bool {
		rec, err := m.store.Read("slow")
		return err == nil && rec.State.Supervisor != nil
	})
	if err := m.Remove(t.Context(), "slow", true); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("Start says that the VM runs")
	}
	if m.store.Exists("slow") {
		t.Error("it is still there")
	}
}

// TestUselessAccelerator: one that does not run our kernel is passed over, told once, and remembered.
func TestUselessAccelerator(t *testing.T) {
	m := rig(t, "useless-kvm")
	create(t, m, "a", CreateOptions{})
	for i, want := range []int{1, 0} {
		told := 0
		box, err := m.Start(t.Context(), "a", func(p api.Progress) {
			if p.Stage == api.StageAccelerator {
				told++
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if told != want || !strings.HasPrefix(box.Accelerator, "tcg") {
			t.Errorf("start %d: told %d times, runs with %s", i, told, box.Accelerator)
		}
		if err := m.Stop(t.Context(), "a", StopOptions{Kill: true}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Create(t.Context(), api.Config{ID: "strict", DiskMiB: 256, RequireAccel: true}, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := m.Start(t.Context(), "strict", nil)
	if !errdefs.Is(err, errdefs.Host) || !strings.Contains(err.Error(), "internal-error") {
		t.Errorf("require-accel: %v", err)
	}
}

// TestMissingAccelerator: that VMs are emulated, and why, is told once.
func TestMissingAccelerator(t *testing.T) {
	m := rig(t, "missing-kvm")
	create(t, m, "a", CreateOptions{})
	var told []string
	for range 2 {
		if _, err := m.Start(t.Context(), "a", func(p api.Progress) {
			if p.Stage == api.StageAccelerator {
				told = append(told, p.Detail)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if err := m.Stop(t.Context(), "a", StopOptions{Kill: true}); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 1 || !strings.Contains(told[0], "no security boundary") || !strings.Contains(told[0], "/dev/kvm is for root alone (a command)") {
		t.Errorf("told: %q", told)
	}
}

// TestKilledIsNoVerdict: that somebody kills a monitor says nothing about its accelerator.
func TestKilledIsNoVerdict(t *testing.T) {
	for _, script := range []string{"killed-kvm", "gone-kvm"} {
		t.Run(script, func(t *testing.T) {
			m := rig(t, script)
			create(t, m, "a", CreateOptions{})
			for range 2 {
				if _, err := m.Start(t.Context(), "a", nil); !errdefs.Is(err, errdefs.Engine) || !strings.Contains(err.Error(), "it was killed before its agent said hello") {
					t.Errorf("it starts with %v", err)
				}
			}
		})
	}
}

// TestRefusalIsNoVerdict: nor does a start that is refused for what the host lacks besides.
func TestRefusalIsNoVerdict(t *testing.T) {
	m := rig(t, "fine-kvm")
	if _, err := m.Create(t.Context(), api.Config{ID: "strict", DiskMiB: 256, RequireConfinement: true}, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start(t.Context(), "strict", nil); !errdefs.Is(err, errdefs.Denied) {
		t.Errorf("it starts with %v", err)
	}
	create(t, m, "a", CreateOptions{})
	if box, err := m.Start(t.Context(), "a", nil); err != nil || box.Accelerator != "kvm" {
		t.Errorf("it runs with %q, %v", box.Accelerator, err)
	}
}

// TestRequireAccel: where there is nothing but emulation, a VM that refuses that is told so.
func TestRequireAccel(t *testing.T) {
	m := rig(t, "")
	if _, err := m.Create(t.Context(), api.Config{ID: "a", DiskMiB: 256, RequireAccel: true}, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Start(t.Context(), "a", nil); !errdefs.Is(err, errdefs.Host) || !strings.HasSuffix(err.Error(), "is usable: the engine offers none here") {
		t.Errorf("it starts with %v", err)
	}
}

// TestRequireAccelPatience: where emulation is refused, an accelerator that is not proven gets the whole boot timeout: there is nothing else.
func TestRequireAccelPatience(t *testing.T) {
	m := rig(t, "silent-kvm")
	if _, err := m.Create(t.Context(), api.Config{ID: "a", DiskMiB: 256, RequireAccel: true, BootTimeoutMs: 700}, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // so short a time proves nothing for the next start
		if _, err := m.Start(t.Context(), "a", nil); err == nil || !strings.Contains(err.Error(), "within 700ms") {
			t.Errorf("it starts with %v", err)
		}
	}
}

// TestRequireConfinement: a VM that asks for every wall does not start where one is missing, and nothing of it runs on.
func TestRequireConfinement(t *testing.T) {
	m := rig(t, "")
	if _, err := m.Create(t.Context(), api.Config{ID: "a", DiskMiB: 256, RequireConfinement: true}, CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := m.Start(t.Context(), "a", nil)
	if !errdefs.Is(err, errdefs.Denied) || !strings.Contains(err.Error(), "everything: a fake machine runs in this process") {
		t.Errorf("it starts with %v", err)
	}
	if box, err := m.Inspect(t.Context(), "a", false); err != nil || box.State != api.StateError {
		t.Errorf("it is %s, %v", box.State, err)
	}
}

// clientVar makes the test program a client: it starts a VM that is bound to it, and waits.
const clientVar = "SMOLVM_TEST_CLIENT_HOME"

func clientMain(home string) int {
	m, err := newManager(home)
	if err != nil {
		return 1
	}
	ctx := context.Background()
	id := os.Getenv("SMOLVM_TEST_CLIENT_ID")
	if _, err := m.Create(ctx, api.Config{ID: id, DiskMiB: 256}, CreateOptions{Owner: api.OwnerClient}); err != nil {
		return 2
	}
	if os.Getenv("SMOLVM_TEST_CLIENT_START") != "" {
		if _, err := m.Start(ctx, id, nil); err != nil {
			return 3
		}
	}
	_, _ = os.Stdout.WriteString("up\n")
	time.Sleep(time.Minute)
	return 0
}

func client(t *testing.T, m *Manager, id, start string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), clientVar+"="+m.store.Home(), "SMOLVM_TEST_CLIENT_ID="+id, "SMOLVM_TEST_CLIENT_START="+start)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line := make([]byte, 3)
	if _, err := out.Read(line); err != nil {
		t.Fatalf("the client failed: %v", err)
	}
	return cmd
}

// TestClientOwner: kill -9 of the client takes its VM along, within 5 seconds, unless it let go of it.
func TestClientOwner(t *testing.T) {
	m := rig(t, "")
	t.Run("running", func(t *testing.T) {
		c := client(t, m, "mine", "yes")
		box := state(t, m, "mine", api.StateRunning, "")
		if box.Owner != api.OwnerClient {
			t.Errorf("owner %s", box.Owner)
		}
		_ = c.Process.Kill()
		eventually(t, 5*time.Second, "supervisor and directory gone", func() bool {
			return !alive(box.SupervisorPID) && !m.store.Exists("mine")
		})
	})
	t.Run("never started", func(t *testing.T) {
		c := client(t, m, "mine", "")
		_ = c.Process.Kill()
		_ = c.Wait()
		if boxes, err := m.List(t.Context(), true); err != nil || len(boxes) != 0 {
			t.Errorf("List = %v, %v", boxes, err)
		}
	})
	t.Run("let go", func(t *testing.T) {
		c := client(t, m, "mine", "yes")
		if err := m.SetOwner(t.Context(), "mine", api.OwnerKeep); err != nil {
			t.Fatal(err)
		}
		_ = c.Process.Kill()
		_ = c.Wait()
		time.Sleep(600 * time.Millisecond)
		if box := state(t, m, "mine", api.StateRunning, ""); box.Owner != api.OwnerKeep {
			t.Errorf("owner %s", box.Owner)
		}
	})
}

// TestTwoCreatesAtOnce: one wins.
func TestTwoCreatesAtOnce(t *testing.T) {
	m := rig(t, "")
	create(t, m, "first", CreateOptions{}) // so that the image is there
	const n = 8
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			_, errs[i] = m.Create(t.Context(), api.Config{ID: "wanted", DiskMiB: 256}, CreateOptions{})
		})
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errdefs.Is(err, errdefs.AlreadyExists):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d won", won)
	}
}

// TestTwoStartsAtOnce: one wins, and one supervisor runs.
func TestTwoStartsAtOnce(t *testing.T) {
	m := rig(t, "")
	create(t, m, "one", CreateOptions{})
	errs := make(chan error, 4)
	for range 4 {
		go func() {
			_, err := m.Start(t.Context(), "one", nil)
			errs <- err
		}()
	}
	won := 0
	for range 4 {
		err := <-errs
		switch {
		case err == nil:
			won++
		case !errdefs.Is(err, errdefs.WrongState):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d won", won)
	}
	state(t, m, "one", api.StateRunning, "")
}

// edit changes a VM's state behind everybody's back.
func edit(t *testing.T, m *Manager, id string, change func(*store.State)) {
	t.Helper()
	rec, err := m.store.Read(id)
	if err != nil {
		t.Fatal(err)
	}
	change(&rec.State)
	b := marshal(t, rec.State)
	if err := os.WriteFile(m.store.Path(id, "state.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestReconcile: records that do not tell the truth.
func TestReconcile(t *testing.T) {
	victim := exec.CommandContext(t.Context(), "sleep", "60")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan struct{})
	go func() { _ = victim.Wait(); close(reaped) }()
	tests := []struct {
		name   string
		change func(*store.State)
		state  api.State
		reason string
		killed bool
	}{
		{"no supervisor", func(s *store.State) { s.State = api.StateRunning }, api.StateError, "supervisor is gone", false},
		{"host restarted", func(s *store.State) { s.State, s.BootID = api.StateRunning, "another" }, api.StateStopped, "host restarted", false},
		{"pid of another boot", func(s *store.State) {
			s.State, s.BootID, s.Engine = api.StatePaused, "another", engineHandle(t, victim.Process.Pid, 0)
		}, api.StateStopped, "host restarted", false},
		{"reused pid", func(s *store.State) {
			s.State, s.Engine = api.StateRunning, engineHandle(t, victim.Process.Pid, 1)
		}, api.StateError, "supervisor is gone", false},
		{"monitor left behind", func(s *store.State) {
			s.State, s.Engine = api.StateRunning, engineHandle(t, victim.Process.Pid, 0)
		}, api.StateError, "supervisor is gone", true},
		{"stopping", func(s *store.State) { s.State = api.StateStopping }, api.StateStopped, "supervisor is gone", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := rig(t, "")
			create(t, m, "x", CreateOptions{})
			edit(t, m, "x", tt.change)
			box := state(t, m, "x", tt.state, tt.reason)
			if box.VMMPID != 0 {
				t.Errorf("it shows the monitor %d", box.VMMPID)
			}
			if gone := !alive(victim.Process.Pid); gone != tt.killed {
				t.Errorf("the process is gone: %v", gone)
			}
			if _, err := m.Start(t.Context(), "x", nil); err != nil {
				t.Error(err)
			}
		})
	}
	<-reaped
}

// TestDeleting: a deletion that was interrupted is brought to its end.
func TestDeleting(t *testing.T) {
	m := rig(t, "")
	create(t, m, "x", CreateOptions{})
	edit(t, m, "x", func(s *store.State) { s.State = api.StateDeleting })
	if boxes, err := m.List(t.Context(), true); err != nil || len(boxes) != 0 {
		t.Errorf("List = %v, %v", boxes, err)
	}
	create(t, m, "x", CreateOptions{})
}

// TestBrokenRecord: it is shown with the command that removes it, and is in nobody's way.
func TestBrokenRecord(t *testing.T) {
	m := rig(t, "")
	create(t, m, "good", CreateOptions{})
	create(t, m, "bad", CreateOptions{})
	if err := os.WriteFile(m.store.Path("bad", "state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	box := state(t, m, "bad", api.StateBroken, "smolvm rm -f bad")
	boxes, err := m.List(t.Context(), true)
	if err != nil || len(boxes) != 2 || boxes[0].ID != "bad" || boxes[0].State != api.StateBroken {
		t.Errorf("List = %v, %v; Inspect = %v", boxes, err, box)
	}
	if _, err := m.Start(t.Context(), "bad", nil); errdefs.RemedyOf(err) != "smolvm rm -f bad" {
		t.Errorf("Start: %v", err)
	}
	if err := m.Remove(t.Context(), "bad", false); err == nil {
		t.Error("Remove without force took a broken one")
	}
	if err := m.Remove(t.Context(), "bad", true); err != nil {
		t.Error(err)
	}
}

// TestNewerRecord: it is refused and stays as it is.
func TestNewerRecord(t *testing.T) {
	m := rig(t, "")
	create(t, m, "new", CreateOptions{})
	path := m.store.Path("new", "state.json")
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newer := []byte(`{"schema": 99, "state": {"phase": "running"}}`)
	if err := os.WriteFile(path, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	state(t, m, "new", api.StateBroken, "newer smolvm")
	ctx := t.Context()
	_, startErr := m.Start(ctx, "new", nil)
	for what, err := range map[string]error{
		"start": startErr, "stop": m.Stop(ctx, "new", StopOptions{}), "remove": m.Remove(ctx, "new", true), "owner": m.SetOwner(ctx, "new", api.OwnerKeep),
	} {
		if err == nil || !strings.Contains(err.Error(), "newer smolvm") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, newer) {
		t.Errorf("the record is now %s (%v)", now, err)
	}
	if err := os.WriteFile(path, was, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAbandoned: what a killed create or rm leaves is removed by the next command.
func TestAbandoned(t *testing.T) {
	m := rig(t, "")
	create(t, m, "x", CreateOptions{})
	home := m.store.Home()
	for _, dir := range []string{"vms/.new-killed", "trash/0123"} {
		if err := os.MkdirAll(filepath.Join(home, dir, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	claim, err := m.store.Claim(t.Context(), "alive")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.List(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{"vms/.new-killed": false, "trash/0123": false, "vms/.new-alive": true, "vms/x": true} {
		if _, err := os.Lstat(filepath.Join(home, dir)); (err == nil) != want {
			t.Errorf("%s: %v", dir, err)
		}
	}
	claim.Abandon()
}

// TestDiskFull: a create that finds no space leaves nothing and says so.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs a file system of its own, which only root can mount")
	}
	m := rig(t, "")
	create(t, m, "first", CreateOptions{})
	vms := filepath.Join(m.store.Home(), "vms")
	if err := m.Remove(t.Context(), "first", true); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", vms, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	_, err := m.Create(t.Context(), api.Config{ID: "full", DiskMiB: 256}, CreateOptions{})
	if !errdefs.Is(err, errdefs.Exhausted) {
		t.Errorf("Create: %v", err)
	}
	leftovers(t, m.store.Home())
	if err := unix.Unmount(vms, 0); err != nil {
		t.Error(err)
	}
}

// TestLockIsInherited: the VM's lock is held by its supervisor alone, and free when that is gone.
func TestLockIsInherited(t *testing.T) {
	m := rig(t, "")
	box := started(t, m, "x")
	if held, err := m.store.Locked("x"); err != nil || !held {
		t.Fatalf("held %v, %v", held, err)
	}
	lockPath := filepath.Join(m.store.Home(), "locks", "vm-x")
	before, err := os.Stat(lockPath)
	if err != nil {
		t.Fatal(err)
	}
	signal(t, box.SupervisorPID, syscall.SIGKILL)
	eventually(t, 5*time.Second, "the lock free", func() bool {
		held, err := m.store.Locked("x")
		return err == nil && !held
	})
	if err := m.Remove(t.Context(), "x", true); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(lockPath)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the lock's file was unlinked: %v", err)
	}
}
