package vm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// sshKey makes a key.
func sshKey(t *testing.T) (private string) {
	t.Helper()
	private = filepath.Join(t.TempDir(), "key")
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", private).CombinedOutput(); err != nil {
		t.Skipf("ssh-keygen: %v: %s; script/bootstrap --dev installs it", err, out)
	}
	return private
}

// sshImage lays files out for the time of the test.
func (c cli) sshImage(t *testing.T, args ...string) (kernel, rootfs string) {
	t.Helper()
	kernel, rootfs, _ = strings.Cut(strings.TrimSpace(c.ok(t, append([]string{"image", "ssh-key"}, args...)...)), "\n")
	t.Cleanup(func() {
		if err := os.RemoveAll(filepath.Dir(rootfs)); err != nil {
			t.Error(err)
		}
	})
	return kernel, rootfs
}

// login logs in over a published port, as whoever has the key would.
func login(t *testing.T, key string, port int, script string) string {
	t.Helper()
	var out []byte
	eventually(t, patience, "a login", func() bool {
		cmd := exec.CommandContext(
			t.Context(), "ssh", "-F", "none", "-i", key, "-p", strconv.Itoa(port), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=30", "root@127.0.0.1", script,
		)
		var err error
		out, err = cmd.CombinedOutput()
		if err != nil {
			t.Logf("%v: %s", err, out)
		}
		return err == nil
	})
	return string(out)
}

// TestVMCoreBootFiles: the files that image ssh-key lays out boot as the image does, with its modules; the key logs in over a
// published port; the environment follows, there too.
func TestVMCoreBootFiles(t *testing.T) {
	c := program(t)
	key := sshKey(t)
	kernel, rootfs := c.sshImage(t, "--name", "t-vm", "--disk", "600m", key+".pub")
	id := c.name(t, "files")
	c.ok(t, "create", "--name", id, "--rootfs", rootfs, "--kernel", kernel, "--boot-args", "console=ttyS0 reboot=k panic=1 pci=off init=/x smol_test=1", "-p", "22", "-e", "SECRET=one")
	c.ok(t, "start", id)
	c.ok(t, "env", "set", id, "-e", "EARLY=bird") // while sshd starts
	box := c.inspect(t, id)
	if box.ImageDigest == "" || box.KernelID == "" || box.Config.DiskMiB != 600 || len(box.Ports) != 1 {
		t.Fatalf("%+v", box)
	}
	port := box.Ports[0].HostPort
	line := c.sh(t, id, "cat /proc/cmdline")
	if !strings.HasSuffix(line, " smol_test=1\n") || strings.Contains(line, "panic=1") || strings.Contains(line, "init=") || strings.Contains(line, "pci=off pci") {
		t.Errorf("the kernel's command line is %q", line)
	}
	if got := c.sh(t, id, "modprobe tun && ls /dev/net/tun; df -m / | awk 'END{print ($2 > 400 && $2 < 620)}'"); got != "/dev/net/tun\n1\n" {
		t.Errorf("modules and disk: %q", got)
	}
	if got := login(t, key, port, "echo $SECRET $EARLY; cat /proc/self/environ /etc/environment 2>/dev/null | tr '\\0' '\\n' | grep -c '^SECRET='"); got != "one bird\n1\n" {
		t.Errorf("%q", got)
	}
	t.Run("environment", func(t *testing.T) {
		if got := c.ok(t, "env", "set", id, "-e", "SECRET=two words", "-e", `QUOTED=say "hi" \ $HOME`); got != "EARLY QUOTED SECRET\n" {
			t.Errorf("%q", got)
		}
		if got := login(t, key, port, `printf '%s\n' "$SECRET" "$QUOTED"`); got != "two words\nsay \"hi\" \\ $HOME\n" {
			t.Errorf("a login sees %q", got)
		}
		for _, how := range [][]string{{"-c"}, {"-l", "-c"}} {
			if got := c.ok(t, append(append([]string{"exec"}, how...), "echo $SECRET; setsid -w sh -c 'echo $SECRET'", id)...); got != "two words\ntwo words\n" {
				t.Errorf("%v sees %q", how, got)
			}
		}
		if got := c.sh(t, id, "stat -c '%a %U' /etc/ssh/sshd_config.d/smolvm.conf; w=words; grep -rl \"two $w\" /etc /run /root /var/lib 2>/dev/null; ps -eo args | grep -c \"two $w$\"; true"); got != "600 root\n/etc/ssh/sshd_config.d/smolvm.conf\n0\n" {
			t.Errorf("where it is found: %q", got)
		}
		if got := c.ok(t, "env", "ls", id); strings.Contains(got, "two words") || !strings.Contains(got, "SECRET") {
			t.Errorf("%q", got)
		}
		c.ok(t, "env", "unset", id, "SECRET", "QUOTED")
		if got := login(t, key, port, "echo =$SECRET="); got != "==\n" {
			t.Errorf("a login sees %q", got)
		}
	})
	t.Run("pipes and directories in the way", func(t *testing.T) {
		c.sh(t, id, "mv /run/sshd.pid /run/pid && mkfifo /run/sshd.pid")
		c.ok(t, "env", "set", id, "-e", "PIPE=1")
		c.sh(t, id, "mv /run/pid /run/sshd.pid; cd /etc/ssh/sshd_config.d && mv smolvm.conf /root/kept && mkdir -p smolvm.conf/x")
		c.run(t, "env", "set", id, "-e", "DIRECTORY=1").says(t, "environment of logins")
		if got := c.ok(t, "env", "ls", id) + c.sh(t, id, "echo =$DIRECTORY=$PIPE="); strings.Contains(got, "DIRECTORY") || !strings.Contains(got, "==1=") {
			t.Errorf("%q", got)
		}
		c.sh(t, id, "cd /etc/ssh/sshd_config.d && rm -r smolvm.conf && mkfifo smolvm.conf")
		c.ok(t, "env", "set", id, "-e", "PIPE=2")
		if got := c.sh(t, id, "stat -c %F /etc/ssh/sshd_config.d/smolvm.conf; echo $PIPE"); got != "regular file\n2\n" {
			t.Errorf("%q", got)
		}
	})
	t.Run("restart", func(t *testing.T) {
		c.ok(t, "stop", id)
		c.ok(t, "env", "set", id, "-e", "SECRET=three")
		c.ok(t, "start", id)
		if got := login(t, key, c.inspect(t, id).Ports[0].HostPort, "echo $SECRET"); got != "three\n" {
			t.Errorf("a login sees %q", got)
		}
	})
	t.Run("in use", func(t *testing.T) {
		if out := c.ok(t, "prune", "-a", "--dry-run"); strings.Contains(out, filepath.Base(filepath.Dir(rootfs))) {
			t.Errorf("it would go: %s", out)
		}
	})
	c.ok(t, "rm", "-f", id)
	if out := c.ok(t, "prune", "-a", "--dry-run"); !strings.Contains(out, filepath.Base(filepath.Dir(rootfs))) {
		t.Errorf("it would stay: %s", out)
	}
}

// TestVMCorePlainExt4: an ext4 of anybody's making boots, is not changed, and is refused once it was; a part of one is refused.
func TestVMCorePlainExt4(t *testing.T) {
	c := program(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(c.bin) // a static program
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "smolvm"), b, 0o755)
	fs := filepath.Join(dir, "any-name.img")
	if out, err := exec.CommandContext(t.Context(), "/usr/sbin/mke2fs", "-q", "-t", "ext4", "-d", root, fs, "100m").CombinedOutput(); err != nil {
		t.Skipf("mke2fs: %v: %s; script/bootstrap --dev installs it", err, out)
	}
	before, err := os.ReadFile(fs)
	if err != nil {
		t.Fatal(err)
	}
	id := c.name(t, "plain")
	c.ok(t, "create", "--name", id, "--rootfs", fs, "--disk", "300m")
	c.ok(t, "start", id)
	if got := c.exec(t, id, "/smolvm", "version"); got.code != 0 || !strings.HasPrefix(got.stdout, "smolvm ") {
		t.Errorf("%+v", got)
	}
	c.exec(t, id, "sh").want(t, 127)
	c.ok(t, "stop", id)
	if after, err := os.ReadFile(fs); err != nil || string(after) != string(before) {
		t.Errorf("the file was changed (%v)", err)
	}
	c.ok(t, "start", id)
	c.ok(t, "stop", id)
	if out, err := exec.CommandContext(t.Context(), "/usr/sbin/tune2fs", "-L", "other", fs).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.run(t, "start", id).says(t, "has changed since the VM was made", "smolvm create --rootfs "+fs)
	if err := os.Truncate(fs, 50<<20); err != nil {
		t.Fatal(err)
	}
	c.run(t, "run", "--rootfs", fs, "--", "/smolvm", "version").says(t, "it was cut off")
	c.run(t, "run", "--rootfs", root, "--", "x").says(t, "no regular file")
	c.run(t, "run", "--kernel", fs, "--", "x").says(t, "no vmlinux")
	c.run(t, "run", "--kernel", c.bin, "--", "x").says(t, "no kernel")
}

// TestVMForeignKernel: a kernel whose drivers are modules, which only come with it as ours, says what it lacks.
func TestVMForeignKernel(t *testing.T) {
	c := program(t)
	kernel, _ := c.sshImage(t, sshKey(t)+".pub")
	b, err := os.ReadFile(kernel)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "vmlinux")
	write(t, copied, b, 0o644)
	begun := time.Now()
	r := c.run(t, "run", "--kernel", copied, "--", "true")
	r.want(t, 125)
	r.says(t, "the kernel lacks drivers, which must be built in", "virtio_mmio (CONFIG_VIRTIO_MMIO)", "overlay (CONFIG_OVERLAY_FS)")
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("it took %s to say so", took)
	}
}

// TestVMRootfsChanges: a file that changes while VMs run from it harms nobody but them.
func TestVMRootfsChanges(t *testing.T) {
	c := program(t)
	_, rootfs := c.sshImage(t, sshKey(t)+".pub")
	own := filepath.Join(t.TempDir(), "rootfs.ext4")
	if out, err := exec.CommandContext(t.Context(), "cp", rootfs, own).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(own, 0o600); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	ids := make([]string, 3)
	for i := range ids {
		ids[i] = c.name(t, "changes")
		all.Go(func() {
			c.ok(t, "create", "--name", ids[i], "--rootfs", own, "--memory", "512m")
			c.ok(t, "start", ids[i])
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	if err := os.Truncate(own, 1<<20); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		_ = c.run(t, "exec", "--timeout", "60s", id, "--", "sh", "-c", "find /usr -type f | head -n 200 | xargs cat >/dev/null")
		if box := c.inspect(t, id); box.State == api.StateBroken || box.State == "" {
			t.Errorf("%+v", box)
		}
		c.ok(t, "stop", "--kill", id)
		c.run(t, "start", id).says(t, "the VM's root file system")
		c.ok(t, "rm", id)
	}
}
