package vm

import (
	"strings"
	"testing"
)

// TestVMChange: another name and other limits, from the next start on.
func TestVMChange(t *testing.T) {
	c := program(t)
	id, next := c.name(t, "change"), c.name(t, "changed")
	c.ok(t, "create", "--name", id, "--disk", "512m")
	c.ok(t, "start", id)
	c.sh(t, id, "echo kept >/root/file; sync")
	c.run(t, "rename", id, next).want(t, 1)
	r := c.run(t, "update", "--disk", "2g", "--memory", "512m", "--cpus", "2", id)
	r.prints(t, 0, id+"\n")
	r.says(t, "next start")
	c.run(t, "update", "--disk", "1g", id).want(t, 2)
	c.ok(t, "stop", id)
	c.ok(t, "rename", id, next)
	c.run(t, "inspect", id).want(t, 1)
	c.ok(t, "start", next)
	got := c.sh(t, next, `cat /root/file; hostname; nproc; awk '/^MemTotal/ { print ($2 < 524288) }' /proc/meminfo; df -m --output=size / | tail -1 | awk '{ print ($1 > 1800) }'`)
	if want := "kept\n" + strings.ReplaceAll(next, "_", "-") + "\n2\n1\n1\n"; got != want {
		t.Errorf("in the guest: %q, want %q", got, want)
	}
	if out := c.ok(t, "events", next); !strings.Contains(out, "renamed (it was "+id+")") {
		t.Errorf("the events are %s", out)
	}
}

// TestVMStats: what is used, and by what.
func TestVMStats(t *testing.T) {
	c := program(t)
	id := c.vm(t, "stats")
	if out := c.ok(t, "stats", id); !strings.Contains(out, id) || !strings.Contains(out, "running") || !strings.Contains(out, "%") {
		t.Errorf("stats printed %s", out)
	}
	if out := c.ok(t, "top", id); !strings.Contains(out, "ps -N") || strings.Contains(out, "kthreadd") {
		t.Errorf("top printed %s", out)
	}
}
