package vm

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/sys/lock"
)

// faulty is the program with internal/sys/fault in it: SMOLVM_FAULT_BIN, or built here.
func faulty(t *testing.T) cli {
	t.Helper()
	c := program(t)
	if bin := os.Getenv("SMOLVM_FAULT_BIN"); bin != "" {
		return cli{bin}
	}
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no SMOLVM_FAULT_BIN, and no go to build it with")
	}
	bin := filepath.Join(t.TempDir(), "smolvm")
	cmd := exec.CommandContext(t.Context(), tool, "build", "-tags", "faults", "-buildvcs=false", "-o", bin, "./cmd/smolvm")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_ = c
	return cli{bin}
}

// at runs the program, which kills itself or what it starts at the step. It returns the exit code, -1 for one that was killed.
func (c cli) at(t *testing.T, step string, args ...string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := c.command(ctx, nil, args...)
	cmd.Env = append(os.Environ(), "SMOLVM_FAULT="+step)
	out, _ := cmd.CombinedOutput()
	t.Logf("smolvm %q killed at %s: %v %s", args, step, cmd.ProcessState, brief(string(out)))
	return cmd.ProcessState.ExitCode()
}

// TestVMLongKilledSteps: kill -9 of the client, the supervisor and the monitor at each step. The state is told truly, start and
// rm work, and nothing is left. One VM goes through all of them: each step's kill is the next one's beginning.
func TestVMLongKilledSteps(t *testing.T) {
	c := faulty(t)
	id := c.name(t, "steps")
	for _, step := range []string{"create.claimed", "create.disk", "create.published"} {
		if code := c.at(t, step, "create", "--name", id, "--memory", "256"); code != -1 {
			t.Errorf("%s: exit code %d", step, code)
		}
		_, there := c.list(t, "-a")[id]
		if there != (step == "create.published") {
			t.Errorf("%s: it is there: %v", step, there)
		}
	}
	home := filepath.Dir(filepath.Dir(c.inspect(t, id).Dir))
	if _, err := os.Lstat(filepath.Join(home, "vms", ".new-"+id)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a VM is left: %v", err)
	}
	for _, tt := range []struct {
		step  string
		do    []string
		code  int // -1: the client was killed
		state api.State
	}{
		{"start.saved", []string{"start", id}, -1, api.StateError},
		{"supervise.begin", []string{"start", id}, 1, api.StateError},
		{"supervise.monitor", []string{"start", id}, 1, api.StateError},
		{"supervise.monitor:child", []string{"start", id}, 1, api.StateError},
		{"supervise.hello", []string{"start", id}, 1, api.StateError},
		{"supervise.hello:child", []string{"start", id}, 1, api.StateError},
		{"supervise.running", []string{"start", id}, 1, api.StateError},
		{"supervise.running:child", []string{"start", id}, 0, api.StateError},
	} {
		t.Run(tt.step, func(t *testing.T) {
			if code := c.at(t, tt.step, tt.do...); code != tt.code && tt.step != "supervise.running:child" { // it may be told or not
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			eventually(t, 10*time.Second, "told truly", func() bool { return c.inspect(t, id).State == tt.state })
			nobody(t, id)
		})
	}
	t.Run("start.spawned", func(t *testing.T) { // the supervisor goes on without who started it
		if code := c.at(t, "start.spawned", "start", id); code != -1 {
			t.Errorf("exit code %d", code)
		}
		eventually(t, patience, "the VM runs", func() bool { return c.inspect(t, id).State == api.StateRunning })
		c.exec(t, id, "true").want(t, 0)
		if !locked(t, id) {
			t.Error("nobody holds its lock")
		}
	})
	t.Run("exec.started", func(t *testing.T) { // without its client the command ends, and nothing else does
		if code := c.at(t, "exec.started", "exec", id, "--", "sh", "-c", "echo here >/root/mark; exec sleep 4321"); code != -1 {
			t.Errorf("exit code %d", code)
		}
		eventually(t, 10*time.Second, "the command ends", func() bool { return c.exec(t, id, "pgrep", "-f", "^sleep 4321").code == 1 })
		if s := c.inspect(t, id); s.State != api.StateRunning {
			t.Errorf("it is %s: %s", s.State, s.Reason)
		}
	})
	t.Run("stop.ended", func(t *testing.T) { // what runs for the VM ended in order: the client is only its witness
		if code := c.at(t, "stop.ended", "stop", id); code != -1 {
			t.Errorf("exit code %d", code)
		}
		if s := c.inspect(t, id); s.State != api.StateStopped {
			t.Errorf("it is %s: %s", s.State, s.Reason)
		}
	})
	for _, step := range []string{"supervise.stopping", "supervise.stopping:child", "supervise.ended"} {
		t.Run(step, func(t *testing.T) {
			if code := c.at(t, step, "start", id); code != 0 {
				t.Fatalf("start: exit code %d", code)
			}
			c.ok(t, "stop", id)
			if s := c.inspect(t, id); s.State != api.StateStopped {
				t.Errorf("it is %s: %s", s.State, s.Reason)
			}
			nobody(t, id)
		})
	}
	for _, step := range []string{"relay.exec", "relay.started"} { // a command's end that nobody saw is no success
		t.Run(step, func(t *testing.T) {
			if code := c.at(t, step, "start", id); code != 0 {
				t.Fatalf("start: exit code %d", code)
			}
			c.exec(t, id, "sleep", "4321").want(t, 125)
			if s := c.inspect(t, id); s.State != api.StateError {
				t.Errorf("it is %s: %s", s.State, s.Reason)
			}
			nobody(t, id)
		})
	}
	t.Run("monitor during exec", func(t *testing.T) {
		c.ok(t, "start", id)
		b := c.background(t, "exec", id, "--", "sh", "-c", "echo up; exec sleep 4321")
		if got := b.line(t); got != "up" {
			t.Fatalf("it printed %q", got)
		}
		if err := syscall.Kill(c.inspect(t, id).VMMPID, syscall.SIGKILL); err != nil && os.Getuid() == 0 {
			t.Fatal(err)
		}
		<-b.ended
		if code := b.cmd.ProcessState.ExitCode(); code != 125 {
			t.Errorf("exec ended with %d", code)
		}
		eventually(t, 10*time.Second, "told truly", func() bool { return c.inspect(t, id).State == api.StateError })
		nobody(t, id)
		c.ok(t, "start", id)
		c.ok(t, "stop", id)
	})
	t.Run("delete", func(t *testing.T) { killedDelete(t, c, id, home) })
}

func killedDelete(t *testing.T, c cli, id, home string) {
	if code := c.at(t, "delete.locked", "rm", id); code != -1 {
		t.Errorf("exit code %d", code)
	}
	if s := c.inspect(t, id); s.State != api.StateStopped {
		t.Errorf("it is %s: %s", s.State, s.Reason)
	}
	if code := c.at(t, "delete.renamed", "start", id); code != 0 { // in the supervisor
		t.Fatalf("start: exit code %d", code)
	}
	c.ok(t, "rm", "-f", id)
	c.gone(t, id)
	c.ok(t, "create", "--name", id)
	if code := c.at(t, "delete.renamed", "rm", id); code != -1 { // in the client
		t.Errorf("exit code %d", code)
	}
	c.gone(t, id)
	if left, err := os.ReadDir(filepath.Join(home, "trash")); err != nil || len(left) > 0 {
		t.Errorf("in the trash: %v, %v", left, err)
	}
	nobody(t, id)
}

// nobody checks that no process of the VM lives: its supervisor and its monitor, whatever that is, hold its lock.
func nobody(t *testing.T, id string) {
	t.Helper()
	eventually(t, 5*time.Second, "no process left", func() bool {
		names, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err == nil && (contains(b, "supervise\x00"+id+"\x00") || contains(b, "guest="+id+"\x00")) {
				return false
			}
		}
		return !locked(t, id)
	})
}

// locked reports whether a process holds a VM's lock.
func locked(t *testing.T, id string) bool {
	t.Helper()
	home := os.Getenv("SMOLVM_HOME")
	if home == "" {
		dir, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		home = filepath.Join(dir, ".local/share/smolvm")
	}
	held, err := lock.Held(filepath.Join(home, "locks", "vm-"+id))
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// TestVMFaultsAreAbsent: the program that users get knows nothing of this.
func TestVMFaultsAreAbsent(t *testing.T) {
	b, err := os.ReadFile(program(t).bin)
	if err != nil {
		t.Fatal(err)
	}
	if contains(b, "SMOLVM_FAULT") {
		t.Error("the program can be told to kill itself")
	}
}
