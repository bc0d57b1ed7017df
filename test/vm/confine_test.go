package vm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/need"
)

// TestVMCoreConfinement: a monitor sees its own files and itself, and nothing else; what confines it is gone with it, whoever is killed.
func TestVMCoreConfinement(t *testing.T) {
	c := program(t)
	id := c.name(t, "walls")
	c.ok(t, "create", "--name", id, "--memory", "256", "--require-confinement")
	if r := c.run(t, "start", id); r.code != 0 && strings.Contains(r.stderr, "wholly confined") {
		need.Missing(t, "this host lets a monitor or a gateway have less than all walls: "+r.stderr)
	} else if r.code != 0 {
		r.want(t, 0)
	}
	s := c.inspect(t, id)
	t.Logf("in force: %s", s.Confinement)
	walls(t, c, s)

	t.Run("the monitor is killed", func(t *testing.T) {
		before := namespaceOf(t, s.VMMPID, "mnt")
		kill(t, s.VMMPID)
		eventually(t, 10*time.Second, "the VM is settled", func() bool { return c.inspect(t, id).State == api.StateError })
		if reason := c.inspect(t, id).Reason; !strings.Contains(reason, "kill") {
			t.Errorf("the reason is %q", reason)
		}
		unused(t, before)
		c.ok(t, "start", id)
	})
	t.Run("the supervisor is killed", func(t *testing.T) {
		s := c.inspect(t, id)
		walls(t, c, s)
		before := namespaceOf(t, s.VMMPID, "mnt")
		kill(t, s.SupervisorPID)
		eventually(t, 5*time.Second, "the monitor goes, too", func() bool { return !lives(s.VMMPID) })
		unused(t, before)
		nobody(t, id)
		c.ok(t, "start", id)
	})
	t.Run("its end", func(t *testing.T) {
		s := c.inspect(t, id)
		before := namespaceOf(t, s.VMMPID, "mnt")
		c.ok(t, "stop", id)
		unused(t, before)
	})
}

func namespaceOf(t *testing.T, pid int, kind string) string {
	t.Helper()
	ns, err := os.Readlink("/proc/" + itoa(pid) + "/ns/" + kind)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// unused checks that no process is in a mount namespace, and that none of its mounts is in ours.
func unused(t *testing.T, ns string) {
	t.Helper()
	eventually(t, 5*time.Second, "nobody is in "+ns, func() bool {
		all, err := filepath.Glob("/proc/[0-9]*/ns/mnt")
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(all, func(path string) bool {
			its, err := os.Readlink(path)
			return err == nil && its == ns
		})
	})
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "nr_inodes=1k") && strings.Contains(line, "size=64k") {
			t.Errorf("a mount is left: %s", line)
		}
	}
}

// walls looks at a monitor from outside.
func walls(t *testing.T, c cli, s api.Sandbox) {
	t.Helper()
	proc := "/proc/" + itoa(s.VMMPID)
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapInh:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n",
		"CapBnd:\t0000000000000000\n", "CapAmb:\t0000000000000000\n", "NSpid:\t" + itoa(s.VMMPID) + "\t1\n",
	} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the monitor's status has no %q:\n%s", want, status)
		}
	}
	for _, kind := range []string{"mnt", "pid", "net", "ipc", "uts", "user"} {
		if kind == "user" && os.Geteuid() == 0 {
			continue // it has a number of its own instead
		}
		if ours, err := os.Readlink("/proc/self/ns/" + kind); err != nil || namespaceOf(t, s.VMMPID, kind) == ours {
			t.Errorf("the monitor is in our %s namespace (%v)", kind, err)
		}
		if !strings.Contains(s.Confinement, kind+"ns") {
			t.Errorf("inspect does not tell of the %s namespace: %s", kind, s.Confinement)
		}
	}
	if strings.Contains(s.Confinement, "missing") {
		t.Errorf("not in force: %s", s.Confinement)
	}
	limits, err := os.ReadFile(proc + "/limits")
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0 bytes") {
		t.Errorf("its limits (%v):\n%s", err, limits)
	}
	engine := c.engine(t, s.Engine)
	for _, entry := range filesOf(t, proc+"/root") {
		if !monitors(engine, entry) {
			t.Errorf("in the monitor's root there is %s", entry)
		}
	}
	readOnly(t, proc)
}

// filesOf lists what is in a root, but for its /proc.
func filesOf(t *testing.T, root string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(root+"/", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at := strings.TrimPrefix(path, root)
		if !d.IsDir() {
			files = append(files, at)
		}
		if at == "/proc" {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil || len(files) == 0 {
		t.Errorf("%s: %v", root, err)
	}
	processes, err := filepath.Glob(root + "/proc/[0-9]*")
	if err != nil || len(processes) != 1 {
		t.Errorf("it sees %v of the host's processes (%v)", processes, err)
	}
	return files
}

// monitors reports whether a file is one that an engine's monitor runs with.
func monitors(engine api.Engine, at string) bool {
	if slices.Contains([]string{"/dev/null", "/dev/kvm", "/etc/ld.so.cache", "/lib", "/lib64", "/lib/x86_64-linux-gnu"}, at) {
		return true
	}
	if real, err := filepath.EvalSymlinks(engine.Path); err == nil && (at == real || at == engine.Path) {
		return true
	}
	if engine.Name == "firecracker" { // it is static, makes its card itself, and listens
		return slices.Contains([]string{"/dev/net/tun", "/run/api.sock", "/run/vsock.sock"}, at)
	}
	firmware := strings.Contains(at, "/share/qemu/") || strings.Contains(at, "/share/seabios/")
	library := strings.Contains(filepath.Base(at), ".so") && (strings.HasPrefix(at, "/usr/lib") || strings.HasPrefix(at, "/lib") || strings.Contains(at, "/lib/qemu/"))
	return firmware || library
}

// readOnly checks that nothing in the root can be changed, but where a monitor has its own sockets.
func readOnly(t *testing.T, proc string) {
	t.Helper()
	mounts, err := os.ReadFile(proc + "/mountinfo")
	if errors.Is(err, fs.ErrPermission) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 6 || strings.HasPrefix(f[4], "/dev/") || f[4] == "/run" {
			continue
		}
		options := strings.Split(f[5], ",")
		if !slices.Contains(options, "ro") || !slices.Contains(options, "nosuid") || !slices.Contains(options, "nodev") {
			t.Errorf("mounted in its root: %s", line)
		}
	}
}
