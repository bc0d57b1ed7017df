package vm

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

func itoa(n int) string { return strconv.Itoa(n) }

// TestVMCoreRun: a VM for one command, that is then gone without a trace.
func TestVMCoreRun(t *testing.T) {
	c := program(t)
	tests := []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr []string
	}{
		{name: "python", args: []string{"python3", "-c", "print(6*7)"}, stdout: "42\n"},
		{name: "exit code", args: []string{"sh", "-c", "echo out; echo err >&2; exit 7"}, code: 7, stdout: "out\n", stderr: []string{"err"}},
		{name: "not found", args: []string{"no-such-command"}, code: 127, stderr: []string{"no-such-command"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id := c.name(t, "run")
			r := c.run(t, append([]string{"run", "--name", id, "--"}, tt.args...)...)
			r.prints(t, tt.code, tt.stdout)
			r.says(t, tt.stderr...)
			c.gone(t, id)
		})
	}
}

// gone checks that nothing is left of a VM.
func (c cli) gone(t *testing.T, id string) {
	t.Helper()
	r := c.run(t, "inspect", id)
	r.want(t, 1)
	r.says(t, id)
	if _, there := c.list(t, "-a")[id]; there {
		t.Errorf("ls -a still shows %s", id)
	}
}

// TestVMRunTimeout: a timeout is 124, and what the command had printed is there.
func TestVMRunTimeout(t *testing.T) {
	c := program(t)
	id := c.name(t, "timeout")
	r := c.run(t, "run", "--name", id, "--timeout", "3s", "--", "sh", "-c", "echo kept; sleep 600; echo never")
	r.prints(t, 124, "kept\n")
	c.gone(t, id)
}

// TestVMRunFlags: one boot with everything that describes a VM and its command, and binary data through both streams.
func TestVMRunFlags(t *testing.T) {
	c := program(t)
	id := c.name(t, "flags")
	file := t.TempDir() + "/env"
	if err := os.WriteFile(file, []byte("# comment\nFROM_FILE=two words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	script := `
		[ "$ONE" = 'a b' ] && [ "$FROM_FILE" = 'two words' ] && [ "$PWD" = /usr ] && [ "$(id -un)" = nobody ] &&
		[ "$(nproc)" = 2 ] && [ "$(hostname)" = ` + id + ` ] &&
		[ "$(awk '/^MemTotal/ { print ($2 > 600000 && $2 < 800000) }' /proc/meminfo)" = 1 ] || { env >&2; id >&2; nproc >&2; exit 9; }
		exec cat`
	r := c.feed(t, bytes.NewReader(data), "run", "-i", "--name", id, "--cpus", "2", "--memory", "768", "--disk", "512",
		"-e", "ONE=a b", "--env-file", file, "-w", "/usr", "-u", "nobody", "--", "sh", "-c", script)
	r.want(t, 0)
	if r.stdout != string(data) {
		t.Errorf("1 MiB of random bytes came back as %d other bytes\nstderr: %s", len(r.stdout), brief(r.stderr))
	}
	c.gone(t, id)
}

// TestVMRunKeep: --keep stops the VM instead of deleting it.
func TestVMRunKeep(t *testing.T) {
	c := program(t)
	id := c.name(t, "keep")
	c.run(t, "run", "--keep", "--name", id, "--", "sh", "-c", "echo here >/root/file; exit 3").want(t, 3)
	if s := c.inspect(t, id); s.State != api.StateStopped || s.Owner != api.OwnerKeep {
		t.Errorf("state %s, owner %s; want stopped, keep", s.State, s.Owner)
	}
	if _, there := c.list(t)[id]; there {
		t.Error("ls shows a stopped VM without -a")
	}
	c.ok(t, "start", id)
	if got := c.sh(t, id, "cat /root/file"); got != "here\n" {
		t.Errorf("the file holds %q", got)
	}
}

// TestVMRunDetached: -d prints the id once the command runs; its output is in the log; the VM stays after the end.
func TestVMRunDetached(t *testing.T) {
	c := program(t)
	id := c.name(t, "detached")
	if got := c.ok(t, "run", "-d", "--name", id, "--", "sh", "-c", "echo begun; sleep 2; echo done; echo err >&2"); got != id+"\n" {
		t.Errorf("run -d printed %q", got)
	}
	if s, there := c.list(t)[id]; !there || s.State != api.StateRunning {
		t.Errorf("ls shows %v", s)
	}
	eventually(t, time.Minute, "the output in the log", func() bool {
		log := c.ok(t, "logs", id)
		return strings.Contains(log, "begun\n") && strings.Contains(log, "done\n") && strings.Contains(log, "err\n")
	})
	if s := c.inspect(t, id); s.State != api.StateRunning {
		t.Errorf("the VM is %s after its command ended", s.State)
	}
	if console := c.ok(t, "logs", "--console", id); !strings.Contains(console, "Linux version") {
		t.Errorf("the console does not begin with the kernel: %s", brief(console))
	}
	c.run(t, "rm", id).want(t, 1)
	c.ok(t, "rm", "-f", id)
	c.gone(t, id)
}

// TestVMCoreKillRun: kill -9 of the client takes the VM and its directory with it, within 5 seconds.
func TestVMCoreKillRun(t *testing.T) {
	c := program(t)
	id := c.name(t, "killrun")
	b := c.background(t, "run", "--name", id, "--", "sh", "-c", "echo up; sleep 900")
	if got := b.line(t); got != "up" {
		t.Fatalf("the command printed %q", got)
	}
	s := c.inspect(t, id)
	if s.Owner != api.OwnerClient || s.Dir == "" || !lives(s.SupervisorPID) || !lives(s.VMMPID) {
		t.Fatalf("owner %q, directory %q, supervisor %d, monitor %d", s.Owner, s.Dir, s.SupervisorPID, s.VMMPID)
	}
	if yes, known := flushes(t, s.VMMPID); yes && known {
		t.Error("the disk of a VM that goes with its client is written through to the host's")
	}
	b.kill(t)
	took := eventually(t, 5*time.Second, "VM and directory gone", func() bool {
		_, err := os.Lstat(s.Dir)
		return errors.Is(err, fs.ErrNotExist) && !lives(s.SupervisorPID) && !lives(s.VMMPID)
	})
	t.Logf("gone after %s", took)
	c.gone(t, id)
}

// flushes reports whether the guest's flushes reach the host's disk, as far as the monitor's command line tells: QEMU's does.
func flushes(t *testing.T, pid int) (yes, known bool) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	return !contains(b, "cache.no-flush=on"), contains(b, "discard=unmap")
}

// TestVMRunSignal: SIGINT and SIGTERM reach the command, whose own end counts.
func TestVMRunSignal(t *testing.T) {
	c := program(t)
	id := c.name(t, "signal")
	script := "trap 'echo caught; exit 9' INT; echo up; while :; do sleep 0.1; done"
	b := c.background(t, "run", "--name", id, "--", "sh", "-c", script)
	if got := b.line(t); got != "up" {
		t.Fatalf("the command printed %q", got)
	}
	if err := b.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if got := b.line(t); got != "caught" {
		t.Errorf("after SIGINT it printed %q", got)
	}
	<-b.ended
	if code := b.cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
	c.gone(t, id)
}
