package vm

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// procs is what ps -a tells.
func (c cli) procs(t *testing.T, id string) map[string]api.Process {
	t.Helper()
	var all []api.Process
	if err := json.Unmarshal([]byte(c.ok(t, "ps", "-a", "--json", id)), &all); err != nil {
		t.Fatal(err)
	}
	byID := map[string]api.Process{}
	for _, p := range all {
		byID[p.ExecID] = p
	}
	return byID
}

// TestVMCoreProcesses: commands that outlive their client.
func TestVMCoreProcesses(t *testing.T) {
	c := program(t)
	id := c.vm(t, "procs")

	t.Run("attach and wait", func(t *testing.T) {
		proc := strings.TrimSpace(c.ok(t, "exec", "-d", id, "-c", "echo begun; echo err >&2; until [ -e /tmp/go ]; do sleep 0.1; done; echo done; exit 3"))
		b := c.background(t, "attach", "--no-stdin", id, proc)
		if got := b.line(t); got != "begun" {
			t.Errorf("attach printed %q", got)
		}
		if p := c.procs(t, id)[proc]; p.Result != nil || !p.Detached || p.PID < 2 {
			t.Errorf("%+v", p)
		}
		b.kill(t) // one that reads it goes; the command does not mind
		c.sh(t, id, "touch /tmp/go")
		if got := c.ok(t, "wait", id, proc); got != "3\n" {
			t.Errorf("wait printed %q", got)
		}
		r := c.run(t, "attach", "--no-stdin", id, proc[:6])
		r.prints(t, 3, "begun\ndone\n")
		r.says(t, "err\n")
		c.run(t, "attach", "--no-stdin", "--offset", "10", id, proc).prints(t, 3, "done\n")
	})
	t.Run("kill", func(t *testing.T) {
		proc := strings.TrimSpace(c.ok(t, "exec", "-d", id, "-c", "trap '' TERM; echo up; setsid sleep 1010 & sleep 1011"))
		eventually(t, 10*time.Second, "the signal ignored", func() bool {
			return c.ok(t, "attach", "--no-follow", id, proc) == "up\n"
		})
		c.ok(t, "kill", "-s", "TERM", id, proc)
		if p := c.procs(t, id)[proc]; p.Result != nil {
			t.Errorf("it ended of what it ignores: %+v", p)
		}
		c.ok(t, "kill", id, proc)
		if got := c.ok(t, "wait", id, proc); got != "137\n" {
			t.Errorf("wait printed %q", got)
		}
		eventually(t, 10*time.Second, "everything that it started dead", func() bool {
			return c.exec(t, id, "pgrep", "-f", "^sleep 101[01]").code == 1
		})
		c.run(t, "kill", id, proc).want(t, 1)
	})
	t.Run("input", func(t *testing.T) {
		proc := strings.TrimSpace(c.ok(t, "exec", "-d", "-i", id, "--", "sh", "-c", "read x; echo got $x; exit 4"))
		c.feed(t, strings.NewReader("this\n"), "attach", id, proc).prints(t, 4, "got this\n")
	})
	t.Run("what is gone is told", func(t *testing.T) {
		proc := strings.TrimSpace(c.ok(t, "exec", "-d", id, "-c", "head -c 5000000 /dev/zero | tr '\\0' x; echo end"))
		c.ok(t, "wait", id, proc)
		r := c.run(t, "attach", "--no-stdin", id, proc)
		r.want(t, 0)
		r.says(t, "3951428 bytes of output are gone")
		if len(r.stdout) != 1<<20 || !strings.HasSuffix(r.stdout, "xend\n") {
			t.Errorf("%d bytes came", len(r.stdout))
		}
	})
	t.Run("a reader that does not read", func(t *testing.T) {
		proc := strings.TrimSpace(c.ok(t, "exec", "-d", id, "-c", "until [ -e /tmp/flood ]; do sleep 0.1; done; head -c 30000000 /dev/zero; echo end"))
		c.background(t, "attach", "--no-stdin", id, proc) // nobody reads its output
		c.sh(t, id, "touch /tmp/flood")
		if got := c.ok(t, "wait", id, proc); got != "0\n" {
			t.Errorf("wait printed %q", got)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		r := c.run(t, "attach", id, "nobody")
		r.want(t, 125)
		r.says(t, "nobody", "smolvm ps -a "+id)
	})
}

// TestVMRunDetachedAttach: the command of run -d is the one that attach, wait and kill mean.
func TestVMRunDetachedAttach(t *testing.T) {
	c := program(t)
	id := c.name(t, "runattach")
	c.ok(t, "run", "-dit", "--name", id, "--", "sh", "-c", "echo up; read x; echo got $x; exit 6")
	c.sh(t, id, "true")
	r := c.feed(t, strings.NewReader("it\n"), "attach", id)
	r.want(t, 6)
	if !strings.Contains(r.stdout, "up\r\n") || !strings.Contains(r.stdout, "got it\r\n") {
		t.Errorf("attach printed %q", r.stdout)
	}
	if got := c.ok(t, "wait", id); got != "6\n" {
		t.Errorf("wait printed %q", got)
	}
	if log := c.ok(t, "logs", id); !strings.Contains(log, "got it") {
		t.Errorf("the log is %q", log)
	}
}

// TestVMWaitForVM: without a command, wait is for the VM; of one that has ended, it is the code of its main command.
func TestVMWaitForVM(t *testing.T) {
	c := program(t)
	id := c.vm(t, "waitvm")
	b := c.background(t, "wait", id)
	time.Sleep(time.Second)
	c.ok(t, "stop", id)
	if got := b.line(t); got != "0" {
		t.Errorf("wait printed %q", got)
	}
	other := c.name(t, "waitmain")
	c.ok(t, "run", "-d", "--name", other, "--", "sh", "-c", "exit 8")
	if got := c.ok(t, "wait", other); got != "8\n" {
		t.Errorf("wait printed %q", got)
	}
	c.ok(t, "stop", other)
	if got := c.ok(t, "wait", other); got != "8\n" {
		t.Errorf("after the end wait printed %q", got)
	}
}
