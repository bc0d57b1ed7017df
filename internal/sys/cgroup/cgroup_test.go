package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCandidates(t *testing.T) {
	for _, c := range []struct {
		name, mounts, own string
		want              []Parent
	}{
		{
			"version 2", "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
			"0::/user.slice/run-1.scope\n",
			[]Parent{{"/sys/fs/cgroup/user.slice/run-1.scope", true}, {"/sys/fs/cgroup/user.slice", true}, {"/sys/fs/cgroup", true}},
		},
		{
			"version 1 beside an empty version 2",
			"31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
				"32 30 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n" +
				"33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			"3:cpuset:/\n2:cpu,cpuacct:/job\n0::/\n",
			[]Parent{{"/sys/fs/cgroup/unified", true}, {"/sys/fs/cgroup/cpu,cpuacct/job", false}, {"/sys/fs/cgroup/cpu,cpuacct", false}},
		},
		{
			"a container", "31 30 0:27 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", "2:cpu:/docker/abc/x\n",
			[]Parent{{"/sys/fs/cgroup/cpu/x", false}, {"/sys/fs/cgroup/cpu", false}},
		},
		{
			"a namespace that hides where we are", "31 30 0:27 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", "2:cpu:/\n",
			[]Parent{{"/sys/fs/cgroup/cpu", false}},
		},
		{"none", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\nbroken\n", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := candidates(c.mounts, c.own); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestFirst: the nearest place that works is taken, but none above a group that has limits.
func TestFirst(t *testing.T) {
	for _, c := range []struct {
		name, file, content string
		want                bool // that the place above is taken
	}{
		{"free", "memory.max", "max\n", true},
		{"no files", "", "", true},
		{"memory", "memory.max", "1073741824\n", false},
		{"processor", "cpu.max", "50000 100000\n", false},
		{"free processor", "cpu.max", "max 100000\n", true},
		{"version 1", "cpu.cfs_quota_us", "50000\n", false},
		{"free version 1", "cpu.cfs_quota_us", "-1\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			own := filepath.Join(top, "own")
			if err := os.Mkdir(own, 0o700); err != nil {
				t.Fatal(err)
			}
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(own, c.file), []byte(c.content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			busy := errors.New("busy")
			got, err := first([]Parent{{own, true}, {top, true}}, func(p Parent) error {
				if p.dir == own {
					return busy
				}
				return nil
			})
			if c.want && (err != nil || got.dir != top) {
				t.Errorf("got %v, %v", got, err)
			}
			if !c.want && (!errors.Is(err, busy) || !strings.Contains(err.Error(), "limits of its own")) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// TestShare: two processes that never rest get no more than what their groups have.
func TestShare(t *testing.T) {
	p, err := Find(Limits{CPUPercent: 20})
	if err != nil {
		if os.Geteuid() == 0 && os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("no control group can be made here: %v", err)
	}
	name := "smolvm-test-" + strconv.Itoa(os.Getpid())
	g, err := p.Make(name, Limits{CPUPercent: 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	})
	if _, err := p.Make(name, Limits{CPUPercent: 20}); err == nil {
		t.Error("made a group twice")
	}
	busy := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = busy.Process.Kill(), busy.Wait() }()
	if err := g.Add(busy.Process.Pid); err != nil {
		t.Fatal(err)
	}
	begun, first := time.Now(), ticks(t, busy.Process.Pid)
	time.Sleep(2 * time.Second)
	used := time.Duration(ticks(t, busy.Process.Pid)-first) * 10 * time.Millisecond
	if most := time.Since(begun)*30/100 + 100*time.Millisecond; used > most || used == 0 {
		t.Errorf("it used %s of %s with a share of 20 %%", used, time.Since(begun))
	}
}

// TestLimits: a process that begins in a group stays within its memory and its number of processes, and nothing is left.
func TestLimits(t *testing.T) {
	limits := Limits{Memory: 64 << 20, Processes: 20}
	p, err := Find(limits)
	if err != nil {
		if os.Getenv("SMOLVM_LAB_INSIDE") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no control group of version 2 can be made here: %v", err)
	}
	name := "smolvm-test-limits-" + strconv.Itoa(os.Getpid())
	g, err := p.Make(name, limits)
	if err != nil {
		t.Fatal(err)
	}
	run := func(script string) string {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(g.File().Fd())}
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out) + " " + fmt.Sprint(err))
	}
	if out := run("cat /proc/self/cgroup"); !strings.HasSuffix(out, name+"/vm\n <nil>") {
		t.Errorf("it begins in %q", out)
	}
	if g.OutOfMemory() {
		t.Error("out of memory at once")
	}
	if out := run("for i in $(seq 30); do sleep 5 & done; wait"); !strings.Contains(strings.ToLower(out), "fork") {
		t.Errorf("30 processes with a limit of 20: %s", out)
	}
	// What no limit of a process counts: files in memory.
	if out := run("dd if=/dev/zero of=/dev/shm/" + name + " bs=1M count=200; rm -f /dev/shm/" + name); !strings.Contains(strings.ToLower(out), "kill") {
		t.Errorf("200 MiB with a limit of 64 MiB: %s", out)
	}
	_ = os.Remove("/dev/shm/" + name)
	if !g.OutOfMemory() {
		t.Error("it does not know that the memory was out")
	}
	// It is the same for one that is moved, and twice is no error.
	late := exec.CommandContext(t.Context(), "sleep", "60")
	if err := late.Start(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := g.Add(late.Process.Pid); err != nil {
			t.Error(err)
		}
	}
	_, _ = late.Process.Kill(), late.Wait()
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(p.Path(name)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
	if err := Remove(p.Path(name)); err != nil {
		t.Errorf("removed twice: %v", err)
	}
}

// ticks is the processor time of a process in hundredths of a second: fields 14 and 15 of its stat.
func ticks(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return user + system
}
