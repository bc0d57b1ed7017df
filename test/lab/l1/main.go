// Command l1 is the first process of the lab's machine, which has a working /dev/kvm in software: it loads what KVM needs,
// runs one command in a copy of the job's disk, tells how it ended, and powers off.
//
// Layer: tests only.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/guest/link"
)

// Job is what to run, in the file lab.json of the job's disk.
type Job struct {
	Args []string
	Env  []string
	Dir  string
	UID  int // who runs it; the job's folders are then his
	// Root means that it runs in our Debian: the image is the drive "root", what it lacks the drive "layer".
	Root bool
}

const (
	jobDir     = "/job"
	workDir    = "/work"
	modulesDir = "/lib/modules"
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Println("lab:", err)
		code = 125
	}
	if port, err := openPort("lab.status"); err == nil {
		_, _ = fmt.Fprintf(port, "%d\n", code)
		_ = port.Close()
	}
	unix.Sync()
	time.Sleep(100 * time.Millisecond) // the port's bytes are on their way
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() (int, error) {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := mount(m[0], m[1]); err != nil && !errors.Is(err, unix.EBUSY) {
			return 0, err
		}
	}
	_ = os.Symlink("/proc/self/fd", "/dev/fd")
	for _, m := range [][2]string{{"devpts", "/dev/pts"}, {"tmpfs", "/dev/shm"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"}, {"cgroup2", "/sys/fs/cgroup"}} {
		if err := mount(m[0], m[1]); err != nil {
			return 0, err
		}
	}
	_ = os.Chmod("/tmp", 0o1777)
	if err := load("/modules", "list"); err != nil {
		return 0, err
	}
	drives := link.FindDrives()
	for _, d := range [][2]string{{"modules", modulesDir}, {"job", jobDir}} {
		if err := attach(drives[d[0]], d[1]); err != nil {
			return 0, fmt.Errorf("mount %s: %w", d[0], err)
		}
	}
	if err := modprobe("kvm-amd", "nested=0"); err != nil {
		return 0, err
	}
	if err := modprobe("tun", ""); err != nil {
		return 0, err
	}
	if err := writable(); err != nil {
		return 0, err
	}
	for _, dev := range []string{"/dev/kvm", "/dev/net/tun"} {
		if err := os.Chmod(dev, 0o666); err != nil {
			return 0, err
		}
	}
	b, err := os.ReadFile(filepath.Join(jobDir, "lab.json"))
	if err != nil {
		return 0, err
	}
	var j Job
	if err := json.Unmarshal(b, &j); err != nil {
		return 0, err
	}
	if j.Root {
		if err := debian(drives); err != nil {
			return 0, err
		}
	}
	return j.run()
}

// attach mounts a drive.
func attach(drive, at string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	return unix.Mount(drive, at, "ext4", unix.MS_RDONLY, "noload")
}

func mount(kind, at string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(kind, at, kind, 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", at, err)
	}
	return nil
}

// writable puts a tmpfs over the job's disk.
func writable() error {
	for _, d := range []string{"/run/upper", "/run/scratch", workDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	opts := "lowerdir=" + jobDir + ",upperdir=/run/upper,workdir=/run/scratch"
	return unix.Mount("overlay", workDir, "overlay", 0, opts)
}

func (j Job) run() (int, error) {
	out, err := openPort("lab.out")
	if err != nil {
		return 0, err
	}
	defer func() { _ = out.Close() }()
	pokes, err := openPort("lab.poke")
	if err != nil {
		return 0, err
	}
	go func() { _, _ = io.Copy(io.Discard, pokes) }() // that they come is all
	for _, v := range j.Env {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			if err := os.Setenv("PATH", path); err != nil { // a name without a folder is looked for there
				return 0, err
			}
		}
	}
	cmd := exec.CommandContext(context.Background(), j.Args[0], j.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = j.Env, filepath.Join(workDir, j.Dir), out, out
	if j.UID != 0 {
		if err := give(j.UID); err != nil {
			return 0, err
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(j.UID), Gid: uint32(j.UID)}}
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return await(cmd.Process.Pid)
}

// await collects whatever ends, which is the first process's duty, until a process of ours does.
func await(pid int) (int, error) {
	for {
		var status unix.WaitStatus
		ended, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case ended != pid:
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		case status.Exited():
			return status.ExitStatus(), nil
		}
	}
}

// give makes the job's folders a user's.
func give(uid int) error {
	return filepath.WalkDir(workDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Lchown(path, uid, uid) //nolint:gosec // nobody else is there yet
		}
		return err
	})
}

func openPort(name string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	path, err := link.FindPort(ctx, name)
	if err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// load loads the modules that dir's list names, in its order.
func load(dir, list string) error {
	f, err := os.Open(filepath.Join(dir, list))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for names := bufio.NewScanner(f); names.Scan(); {
		if err := insert(filepath.Join(dir, names.Text()), ""); err != nil {
			return err
		}
	}
	return nil
}

func insert(path, params string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	flags := 0
	if !strings.HasSuffix(path, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	if err := unix.FinitModule(int(f.Fd()), params, flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("module %s: %w", filepath.Base(path), err)
	}
	return nil
}

// modprobe loads a module and what it needs.
func modprobe(name, params string) error {
	deps, err := os.ReadFile(filepath.Join(modulesDir, "modules.dep"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(deps)) {
		file, needs, _ := strings.Cut(strings.TrimSpace(line), ":")
		if base, _, _ := strings.Cut(filepath.Base(file), ".ko"); base != name {
			continue
		}
		for _, n := range slices.Backward(strings.Fields(needs)) {
			if err := insert(filepath.Join(modulesDir, n), ""); err != nil {
				return err
			}
		}
		return insert(filepath.Join(modulesDir, file), params)
	}
	return fmt.Errorf("module %s: %w", name, fs.ErrNotExist)
}
