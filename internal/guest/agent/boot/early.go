package boot

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mountPoint is something to mount.
type mountPoint struct {
	fs, at, opts string
	flags        uintptr
	mode         os.FileMode
}

const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// earlyMounts are what the agent itself needs.
func earlyMounts() []mountPoint {
	return []mountPoint{
		{"proc", "/proc", "", safe, 0o555},
		{"sysfs", "/sys", "", safe, 0o555},
		{"devtmpfs", "/dev", "mode=0755", unix.MS_NOSUID, 0o755},
	}
}

// lateMounts are what programs expect below a system's root, beside those that moved along.
func lateMounts() []mountPoint {
	return []mountPoint{
		{"devpts", "/dev/pts", "gid=5,mode=0620,ptmxmode=0666", unix.MS_NOSUID | unix.MS_NOEXEC, 0o755},
		{"tmpfs", "/dev/shm", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV, 0o1777},
		{"mqueue", "/dev/mqueue", "", safe, 0o1777},
		{"tmpfs", "/run", "mode=0755,size=20%", unix.MS_NOSUID | unix.MS_NODEV, 0o755},
		{"cgroup2", "/sys/fs/cgroup", "nsdelegate", safe, 0o555},
	}
}

func mount(m mountPoint) error {
	if err := os.MkdirAll(m.at, m.mode); err != nil {
		return err
	}
	if err := unix.Mount(m.fs, m.at, m.fs, m.flags, m.opts); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.fs, m.at, err)
	}
	return nil
}

// Early mounts the kernel's file systems and loads the initramfs's modules.
func Early(log *slog.Logger) error {
	unix.Umask(0o022)
	for _, m := range earlyMounts() {
		// The kernel may have mounted /dev itself.
		if err := mount(m); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		_ = os.Symlink(target, "/dev/"+name)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64 << 10, Max: 1 << 20}); err != nil {
		log.Warn("rlimit", "err", err)
	}
	// Nobody speaks IPv6 at the other end of the card: without an address of it, programs do not try. A kernel without IPv6 has
	// no such file.
	_ = os.WriteFile(noIPv6, []byte("1\n"), 0)
	defer func() { _ = os.WriteFile(noIPv6, []byte("0\n"), 0) }()
	return loadModules("/modules")
}

// noIPv6 says whether new cards are without IPv6.
const noIPv6 = "/proc/sys/net/ipv6/conf/default/disable_ipv6"

// loadModules loads the modules that dir's list names, in its order.
func loadModules(dir string) error {
	list, err := os.Open(filepath.Join(dir, "list"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = list.Close() }()
	s := bufio.NewScanner(list)
	for s.Scan() {
		name := strings.TrimSpace(s.Text())
		if name == "" {
			continue
		}
		if err := loadModule(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	return s.Err()
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	flags := 0
	if !strings.HasSuffix(path, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	err = unix.FinitModule(int(f.Fd()), "", flags)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// Parameter reports whether word stands on the kernel's command line.
func Parameter(word string) bool {
	b, err := os.ReadFile("/proc/cmdline")
	return err == nil && containsField(string(b), word)
}

func containsField(line, word string) bool {
	for f := range strings.FieldsSeq(line) {
		if f == word {
			return true
		}
	}
	return false
}

// PowerOff switches the machine off. It does not return.
func PowerOff() {
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	syscall.Exit(1)
}
