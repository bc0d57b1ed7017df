package vm

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// TestVMRootCPUShare: a VM gets no more of a processor than its share, and nothing of its control group is left, however
// its supervisor ends.
func TestVMRootCPUShare(t *testing.T) {
	c := program(t)
	id := c.vm(t, "share", "--cpu-share", "40")
	c.ok(t, "exec", id, "--", "sh", "-c", "while :; do :; done >/dev/null 2>&1 &")
	box := c.inspect(t, id)
	begun, first := time.Now(), cpuTime(t, box.VMMPID)
	time.Sleep(3 * time.Second)
	used, passed := cpuTime(t, box.VMMPID)-first, time.Since(begun)
	if used > passed*50/100 || used == 0 {
		t.Errorf("it used %s of %s with a share of 40 %%", used, passed)
	}
	if got := groups(id); len(got) != 1 {
		t.Errorf("its control groups are %v", got)
	}
	kill(t, box.SupervisorPID)
	if s := c.inspect(t, id); s.State != api.StateError {
		t.Errorf("state %s", s.State)
	}
	if got := groups(id); len(got) != 0 {
		t.Errorf("after the supervisor's death there are %v", got)
	}
	c.ok(t, "start", id)
	c.ok(t, "rm", "-f", id)
	if got := groups(id); len(got) != 0 {
		t.Errorf("after rm there are %v", got)
	}
}

// groups are the control groups of a VM's monitor.
func groups(id string) (found []string) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "smolvm-"+id) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// TestVMRootGroup: where control groups of version 2 can be made, each monitor has one that bounds its memory and its processes, and
// a monitor that takes more ends, which the VM says.
func TestVMRootGroup(t *testing.T) {
	c := program(t)
	id := c.vm(t, "group", "--memory", "256m")
	found := groups(id)
	if len(found) == 0 {
		if os.Getenv("SMOLVM_LAB_INSIDE") == "1" {
			t.Fatal("the monitor has no control group")
		}
		t.Skip("no control group of version 2 can be made here")
	}
	dir := found[0]
	box := c.inspect(t, id)
	if !strings.Contains(box.Confinement, "cgroup") {
		t.Errorf("its confinement is %q", box.Confinement)
	}
	for file, want := range map[string]string{
		"memory.max": strconv.Itoa((256 + 1024 + 16*box.Config.CPUs) << 20), "pids.max": "1024", "vm/cgroup.procs": strconv.Itoa(box.VMMPID),
	} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if got := strings.TrimSpace(string(b)); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %s", file, got, err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "memory.max"), []byte("16M"), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, "the VM is settled", func() bool { return c.inspect(t, id).State == api.StateError })
	if s := c.inspect(t, id); !strings.Contains(s.Reason, "its control group had no memory left") {
		t.Errorf("its reason is %q", s.Reason)
	}
	if got := groups(id); len(got) != 0 {
		t.Errorf("after its end there are %v", got)
	}
}

// TestVMLimits: what cannot be enforced is refused before anything is made; a limited disk works.
func TestVMLimits(t *testing.T) {
	c := program(t)
	id := c.name(t, "share")
	if r := c.run(t, "create", "--name", id, "--cpu-share", "50"); r.code != 0 {
		r.want(t, 1)
		r.says(t, "cpu share", "try: ")
		c.gone(t, id)
	} else {
		c.ok(t, "rm", id)
	}
	for _, flags := range [][]string{{"--cpu-share", "101"}, {"--disk-rate", "0"}, {"--disk-iops", "3"}, {"--cpu-share", "-1"}} {
		r := c.run(t, append([]string{"create", "--name", id}, flags...)...)
		if r.code == 0 || !strings.Contains(r.stderr, strings.TrimPrefix(flags[0], "--")) && !strings.Contains(r.stderr, strings.ReplaceAll(strings.TrimPrefix(flags[0], "--"), "-", " ")) {
			t.Errorf("%v: exit code %d, %s", flags, r.code, r.stderr)
		}
		c.gone(t, id)
	}
	id = c.vm(t, "rate", "--disk-rate", "8m", "--disk-iops", "2000")
	begun := time.Now()
	c.ok(t, "exec", id, "--", "dd", "if=/dev/zero", "of=/root/x", "bs=1M", "count=24", "oflag=direct")
	if took := time.Since(begun); took < 2*time.Second {
		t.Errorf("24 MiB at 8 MiB/s took %s", took)
	}
}

// TestVMSizes: how many processes there may be, and how much is kept of what is printed.
func TestVMSizes(t *testing.T) {
	c := program(t)
	id := c.vm(t, "sizes", "--max-processes", "40", "--output-size", "4m", "--log-size", "1m")
	r := c.run(t, "exec", id, "-c", "for i in $(seq 60); do sleep 20 & done; wait -n; echo started")
	r.says(t, "fork")
	if out := c.ok(t, "exec", id, "-c", "cat /sys/fs/cgroup/user/pids.max"); out != "40\n" {
		t.Errorf("pids.max is %q", out)
	}
	proc := strings.TrimSpace(c.ok(t, "exec", "-d", id, "--", "head", "-c", "3000000", "/dev/zero"))
	c.ok(t, "wait", id, proc)
	if out := c.ok(t, "attach", "--no-stdin", id, proc); len(out) != 3_000_000 {
		t.Errorf("%d bytes are kept of 3,000,000", len(out))
	}
	if s := c.inspect(t, id); s.Config.MaxProcesses != 40 || s.Config.OutputMiB != 4 || s.Config.LogMiB != 1 {
		t.Errorf("%+v", s.Config)
	}
}

// TestVMBudget: a start beyond what the host may give is refused with the figures, and the VM is as it was.
func TestVMBudget(t *testing.T) {
	c := program(t)
	t.Setenv("SMOLVM_MAX_MEMORY", "300m")
	id := c.name(t, "large")
	c.ok(t, "create", "--name", id, "--memory", "256m")
	r := c.run(t, "start", id)
	r.want(t, 1)
	r.says(t, "300 MiB", "384 MiB", "SMOLVM_MAX_MEMORY")
	if s := c.inspect(t, id); s.State != api.StateCreated {
		t.Errorf("state %s", s.State)
	}
	t.Setenv("SMOLVM_MAX_MEMORY", "lots")
	c.run(t, "start", id).says(t, "SMOLVM_MAX_MEMORY")
	t.Setenv("SMOLVM_MAX_MEMORY", "")
	c.ok(t, "rm", id)
}

// cpuTime is the processor time that a process has had: fields 14 and 15 of its stat, in hundredths of a second.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
