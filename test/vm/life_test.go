package vm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
)

// TestVMCoreLife: a VM that survives its client, every stop, every kill, and keeps what was synced.
func TestVMCoreLife(t *testing.T) {
	c := program(t)
	id := c.name(t, "life")
	if got := c.ok(t, "create", "--name", id, "--memory", "512"); got != id+"\n" {
		t.Errorf("create printed %q", got)
	}
	t.Run("created", func(t *testing.T) { created(t, c, id) })
	t.Run("started", func(t *testing.T) { started(t, c, id) })
	if t.Failed() {
		return
	}
	c.sh(t, id, "echo precious >/root/file && sync")

	tests := []struct {
		name   string
		end    func(t *testing.T, s api.Sandbox)
		state  api.State
		reason string
	}{
		{"stop", func(t *testing.T, _ api.Sandbox) { c.ok(t, "stop", id) }, api.StateStopped, ""},
		{"guest poweroff", func(t *testing.T, _ api.Sandbox) {
			_ = c.exec(t, id, "sh", "-c", "sync; echo o >/proc/sysrq-trigger; sleep 60")
		}, api.StateStopped, "guest"},
		{"kill of the monitor", func(t *testing.T, s api.Sandbox) { kill(t, s.VMMPID) }, api.StateError, "kill"},
		{"kill of the supervisor", func(t *testing.T, s api.Sandbox) { kill(t, s.SupervisorPID) }, api.StateError, "supervisor"},
		{"SIGTERM of the supervisor", func(t *testing.T, s api.Sandbox) {
			if err := syscall.Kill(s.SupervisorPID, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}, api.StateStopped, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := c.inspect(t, id)
			tt.end(t, before)
			eventually(t, 30*time.Second, "supervisor and monitor gone", func() bool {
				return !lives(before.SupervisorPID) && !lives(before.VMMPID)
			})
			s := c.inspect(t, id)
			if s.State != tt.state || !strings.Contains(s.Reason, tt.reason) {
				t.Errorf("state %s, reason %q; want %s with %q", s.State, s.Reason, tt.state, tt.reason)
			}
			if s.SupervisorPID != 0 || s.VMMPID != 0 {
				t.Errorf("it shows processes: %d, %d", s.SupervisorPID, s.VMMPID)
			}
			givenBack(t, s.Dir)
			c.exec(t, id, "true").want(t, 125)
			c.ok(t, "start", id)
			if got := c.sh(t, id, "cat /root/file"); got != "precious\n" {
				t.Errorf("after the new start the file holds %q", got)
			}
		})
	}
	t.Run("remove", func(t *testing.T) { removed(t, c, id) })
}

func created(t *testing.T, c cli, id string) {
	s := c.inspect(t, id)
	if s.State != api.StateCreated || s.Owner != api.OwnerKeep || s.Config.MemoryMiB != 512 || s.Network.Mode != api.NetOpen {
		t.Errorf("created as %+v", s)
	}
	if _, there := c.list(t)[id]; there {
		t.Error("ls shows a VM that was never started without -a")
	}
	if _, there := c.list(t, "-a")[id]; !there {
		t.Error("ls -a does not show it")
	}
	r := c.run(t, "create", "--name", id)
	r.want(t, 1)
	r.says(t, id)
	r = c.run(t, "create", "--name", "Not_An_Id-")
	r.want(t, 2)
	r.says(t, "Not_An_Id-")
	c.exec(t, id, "true").want(t, 125)
}

func started(t *testing.T, c cli, id string) {
	c.ok(t, "start", id)
	s := c.inspect(t, id)
	if s.State != api.StateRunning || !lives(s.SupervisorPID) || !lives(s.VMMPID) {
		t.Fatalf("started as %+v", s)
	}
	for field, value := range map[string]string{
		"engine": s.Engine, "accelerator": s.Accelerator, "confinement": s.Confinement, "image_digest": s.ImageDigest,
		"kernel_release": s.KernelRelease, "dir": s.Dir,
	} {
		if value == "" {
			t.Errorf("inspect does not fill %s", field)
		}
	}
	if got := c.sh(t, id, "uname -r"); got != s.KernelRelease+"\n" {
		t.Errorf("the guest runs %q, inspect says %q", got, s.KernelRelease)
	}
	if got := c.list(t)[id]; got.State != api.StateRunning {
		t.Errorf("ls shows it as %q", got.State)
	}
	confined(t, s)
	if c.run(t, "start", id).code == 0 && c.inspect(t, id).VMMPID != s.VMMPID {
		t.Error("a second start made a second VMM")
	}
}

// confined looks at the monitor from outside: what inspect claims must be so.
func confined(t *testing.T, s api.Sandbox) {
	t.Helper()
	status, err := os.ReadFile("/proc/" + itoa(s.VMMPID) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the monitor's status has no %q", want)
		}
	}
	if os.Geteuid() == 0 {
		if strings.Contains(string(status), "\nUid:\t0\t") || !strings.Contains(string(status), "\nUid:\t19") {
			t.Errorf("the monitor runs as root or with another uid than ours:\n%s", status)
		}
		if !strings.Contains(string(status), "CapEff:\t0000000000000000") {
			t.Error("the monitor has capabilities")
		}
	}
	theirs, err := os.Readlink("/proc/" + itoa(s.VMMPID) + "/ns/net")
	ours, _ := os.Readlink("/proc/self/ns/net")
	if os.Geteuid() == 0 && (err != nil || theirs == ours) {
		t.Errorf("the monitor shares our network namespace (%v)", err)
	}
}

// givenBack checks that a VM's disk belongs to whom its directory does: a monitor that had it is gone, and its number may be the
// next one's.
func givenBack(t *testing.T, dir string) {
	t.Helper()
	var its, disks unix.Stat_t
	if err := errors.Join(unix.Stat(dir, &its), unix.Stat(filepath.Join(dir, "disk.ext4"), &disks)); err != nil {
		t.Fatal(err)
	}
	if disks.Uid != its.Uid || disks.Gid != its.Gid {
		t.Errorf("its disk belongs to %d:%d, its directory to %d:%d", disks.Uid, disks.Gid, its.Uid, its.Gid)
	}
}

func removed(t *testing.T, c cli, id string) {
	dir := c.inspect(t, id).Dir
	r := c.run(t, "rm", id)
	r.want(t, 1)
	r.says(t, "smolvm")
	c.ok(t, "stop", id)
	c.ok(t, "stop", id)
	c.ok(t, "rm", id)
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its directory is still there: %v", err)
	}
	c.gone(t, id)
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("no such process: %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestVMPause: a paused VM stands still and goes on where it was.
func TestVMPause(t *testing.T) {
	c := program(t)
	id := c.vm(t, "pause")
	c.ok(t, "pause", id)
	if s := c.inspect(t, id); s.State != api.StatePaused {
		t.Errorf("state %s", s.State)
	}
	r := c.exec(t, id, "true")
	r.want(t, 125)
	r.says(t, "unpause")
	c.ok(t, "unpause", id)
	if s := c.inspect(t, id); s.State != api.StateRunning {
		t.Errorf("state %s", s.State)
	}
	c.exec(t, id, "true").want(t, 0)
	if yes, known := flushes(t, c.inspect(t, id).VMMPID); known && !yes {
		t.Error("what the guest flushes may be lost, though its VM stays")
	}
	c.ok(t, "pause", id)
	c.ok(t, "rm", "-f", id)
	c.gone(t, id)
}

// TestVMDiskFull: a guest that fills its disk gets ENOSPC, and lives.
func TestVMDiskFull(t *testing.T) {
	c := program(t)
	id := c.vm(t, "full", "--disk", "256")
	r := c.exec(t, id, "dd", "if=/dev/zero", "of=/root/fill", "bs=1M")
	r.want(t, 1)
	r.says(t, "No space left on device")
	if got := c.sh(t, id, "rm /root/fill && echo alive >/root/x && cat /root/x"); got != "alive\n" {
		t.Errorf("afterwards it says %q", got)
	}
}

// TestVMGuestIsDebian: what the image promises.
func TestVMGuestIsDebian(t *testing.T) {
	c := program(t)
	id := c.vm(t, "debian")
	got := c.sh(t, id, `. /etc/os-release; echo $ID $VERSION_ID
		for p in bash python3 pip3 git curl sshd ps ip less xz tmux jq modprobe mount apt-get; do command -v $p >/dev/null || echo no $p; done
		[ -s /etc/machine-id ] || echo no machine-id
		ls /etc/ssh/ssh_host_*_key 2>/dev/null
		modprobe tun && [ -e /dev/net/tun ] || echo no tun
		mount -t tmpfs none /mnt && umount /mnt || echo no mount
		python3 -m venv --without-pip /tmp/v && /tmp/v/bin/python -c 'print("venv")'
		cat /sys/class/net/eth0/operstate`)
	want := "debian 13\nvenv\nup\n"
	if got != want {
		t.Errorf("the guest says\n%s\nwant\n%s", got, want)
	}
	if drift := c.sh(t, id, "date +%s"); drift != "" {
		seconds, err := time.ParseDuration(strings.TrimSpace(drift) + "s")
		if off := time.Until(time.Unix(int64(seconds.Seconds()), 0)).Abs(); err != nil || off > 30*time.Second {
			t.Errorf("the guest's clock is off by %s (%v)", off, err)
		}
	}
}
