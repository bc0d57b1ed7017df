package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

// TestShare: two processes that never rest get no more than what their groups have.
func TestShare(t *testing.T) {
	p, err := Find()
	if err != nil {
		if os.Geteuid() == 0 && os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("no control group can be made here: %v", err)
	}
	name := "smolvm-test-" + strconv.Itoa(os.Getpid())
	g, err := p.Make(name, 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	})
	if _, err := p.Make(name, 20); err == nil {
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
