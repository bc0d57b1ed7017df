// Package lab runs tests of the engines on a machine that has a working KVM, in software: QEMU emulates a processor with
// SVM, the kernel of our guests runs on it with kvm_amd, and Firecracker and QEMU below that. A job is static programs alone, or
// has our Debian image for its root. It proves what the engines do, never how fast. `script/test lab` sets it up.
package lab

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/apt"
	"github.com/smolvm/smolvm/internal/image/ext4"
	"github.com/smolvm/smolvm/internal/image/kernel"
)

// What script/test-lab sets.
const (
	labVar         = "SMOLVM_LAB"             // "1": run
	qemuVar        = "SMOLVM_LAB_QEMU"        // QEMU 9 or newer
	firmwareVar    = "SMOLVM_LAB_FIRMWARE"    // its folders, by colons
	firecrackerVar = "SMOLVM_LAB_FIRECRACKER" // the folder with firecracker and jailer
	layerVar       = "SMOLVM_LAB_LAYER"       // a tar of what our Debian image lacks: Debian's QEMU and its libraries
	testsVar       = "SMOLVM_LAB_TESTS"       // a pattern of tests; "" = all
	coreVar        = "SMOLVM_LAB_CORE"        // "1" = what fits into 15 minutes beside everything else
)

// limit is for all of one machine's life.
const limit = 62 * time.Minute

// testTimeout is for the tests inside, which then say where they stand.
const testTimeout = "60m"

// lab is what the machines are made of.
type lab struct {
	dir   string // of this test
	boot  image.BootFiles
	guest string // the engines' suite's guest
	home  string
}

func open(t *testing.T) lab {
	t.Helper()
	if os.Getenv(labVar) != "1" {
		t.Skip("needs the lab; script/test lab runs it")
	}
	l := lab{dir: t.TempDir(), home: os.Getenv("SMOLVM_HOME")}
	if l.home == "" {
		dir, err := os.UserHomeDir()
		must(t, err)
		l.home = filepath.Join(dir, ".local/share/smolvm")
	}
	archive, err := apt.NewArchive(os.Getenv("SMOLVM_DEBIAN_MIRROR"))
	must(t, err)
	images := image.New(image.Options{Home: l.home, Version: "lab", Kernels: kernel.Source{Archive: archive}})
	pinned, err := images.EnsureKernel(t.Context(), false, nil)
	must(t, err)
	init, err := os.ReadFile(l.build(t, "l1", "build", "github.com/smolvm/smolvm/test/lab/l1"))
	must(t, err)
	l.boot, err = images.BootFiles(t.Context(), pinned, init)
	must(t, err)
	l.guest = l.build(t, "testguest", "build", "github.com/smolvm/smolvm/internal/engine/enginetest/testguest")
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// build makes a static program.
func (l lab) build(t *testing.T, name string, args ...string) string {
	t.Helper()
	path := filepath.Join(l.dir, name)
	args = append(args[:1:1], append([]string{"-o", path}, args[1:]...)...)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return path
}

// job is a command in the lab's machine.
type job struct {
	Args []string
	Env  []string
	Dir  string
	UID  int // who runs it
	// Root: our Debian image is its root, with Python, ssh and all, and with Debian's QEMU. Otherwise there is nothing but the job.
	Root bool

	limit time.Duration     // 0: what all have
	files map[string]string // of its disk: name there to path here
}

// tests is the job of a package's tests.
func (l lab) tests(t *testing.T, pkg, pattern string, env ...string) job {
	t.Helper()
	binary := l.build(t, "run.test", "test", "-c", "github.com/smolvm/smolvm/"+pkg)
	fc := os.Getenv(firecrackerVar)
	j := job{
		Args: []string{"./run.test", "-test.v", "-test.timeout", testTimeout, "-test.run", pattern},
		Env: append([]string{
			"PATH=/work/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/work", "LANG=C.UTF-8", "SMOLVM_HOME=/work/home", "SMOLVM_VM_TESTS=1", "SMOLVM_LAB_INSIDE=1", "SMOLVM_TESTGUEST=/work/testguest",
			"SMOLVM_FIRECRACKER=/work/bin/firecracker",
		}, env...),
		files: map[string]string{"run.test": binary, "testguest": l.guest, "bin/firecracker": filepath.Join(fc, "firecracker"), "bin/jailer": filepath.Join(fc, "jailer")},
	}
	if only := os.Getenv(testsVar); only != "" {
		j.Args[len(j.Args)-1] = only
	}
	j.add(t, "home/kernels/pinned", filepath.Join(l.home, "kernels/pinned"))
	dir := filepath.Dir(l.boot.Kernel)
	for _, name := range []string{"vmlinux", "modules.ext4", "manifest.json"} {
		j.add(t, filepath.Join("home/kernels", filepath.Base(dir), name), filepath.Join(dir, name))
	}
	modules, err := filepath.Glob(filepath.Join(dir, "initrd/*"))
	must(t, err)
	for _, m := range modules {
		j.add(t, filepath.Join("home/kernels", filepath.Base(dir), "initrd", filepath.Base(m)), m)
	}
	return j
}

func (j *job) add(t *testing.T, name, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	j.files[name] = path
}

// disk makes the file system that holds the job.
func (l lab) disk(t *testing.T, j job) string {
	t.Helper()
	facts, err := json.Marshal(j)
	must(t, err)
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(pack(w, facts, j.files)) }()
	path := filepath.Join(l.dir, "job.ext4")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	must(t, err)
	defer func() { _ = f.Close() }()
	must(t, ext4.Convert(t.Context(), r, f, 0))
	return path
}

func pack(w io.Writer, facts []byte, files map[string]string) error {
	out := tar.NewWriter(w)
	if err := out.WriteHeader(&tar.Header{Name: "lab.json", Mode: 0o644, Size: int64(len(facts))}); err != nil {
		return err
	}
	if _, err := out.Write(facts); err != nil {
		return err
	}
	dirs := map[string]bool{".": true}
	for name, path := range files {
		if err := packDirs(out, filepath.Dir(name), dirs); err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		// To the nanosecond: an image whose time is another one than when it was made is hashed at every start.
		if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(b)), ModTime: st.ModTime(), Format: tar.FormatPAX}); err != nil {
			return err
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	return out.Close()
}

func packDirs(out *tar.Writer, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := packDirs(out, filepath.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	return out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755})
}

// image is our default image's root.
func (l lab) image(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.home, "images/names/debian"))
	must(t, err)
	return filepath.Join(l.home, "images", strings.TrimPrefix(strings.TrimSpace(string(b)), "sha256:"), "rootfs.ext4")
}

// layer is a file system of what the image lacks.
func (l lab) layer(t *testing.T) string {
	t.Helper()
	in, err := os.Open(os.Getenv(layerVar))
	must(t, err)
	defer func() { _ = in.Close() }()
	path := filepath.Join(l.dir, "layer.ext4")
	out, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	must(t, err)
	defer func() { _ = out.Close() }()
	must(t, ext4.Convert(t.Context(), in, out, 0))
	return path
}

// run runs a job to its end and returns its exit status and what it printed. A machine that dies is tried once more, and that is told.
func (l lab) run(t *testing.T, j job) (status int, output string) {
	t.Helper()
	disk := l.disk(t, j)
	status, output, err := l.once(t, j, disk)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Logf("TRIED ONCE MORE: %v", err)
		status, output, err = l.once(t, j, disk)
	}
	if err != nil {
		t.Fatal(err)
	}
	return status, output
}

// once is one machine. An error is its own fault.
func (l lab) once(t *testing.T, j job, disk string) (status int, output string, err error) {
	t.Helper()
	console := filepath.Join(l.dir, "console")
	ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(j.limit, limit))
	defer cancel()
	memory := "2560"
	if j.Root {
		memory = "4096" // what it writes lies there
	}
	args := []string{
		"-M", "q35,accel=tcg", "-cpu", "max", "-smp", "1", "-m", memory, "-nodefaults", "-no-user-config", "-display", "none",
		"-no-reboot", "-monitor", "none", "-serial", "file:" + console,
		// Whether the timer ticks is not tried: the kernel panics where a busy host lets too little time pass for it.
		"-kernel", l.boot.Kernel, "-initrd", l.boot.Initrd, "-append", "console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check",
		"-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
	}
	drives := map[string]string{"modules": l.boot.Modules, "job": disk}
	if j.Root {
		drives["root"], drives["layer"] = l.image(t), l.layer(t)
	}
	for id, path := range drives {
		args = append(args, "-drive", "if=none,format=raw,readonly=on,id="+id+",file="+path, "-device", "virtio-blk-pci,drive="+id+",serial="+id)
	}
	for _, dir := range filepath.SplitList(os.Getenv(firmwareVar)) {
		args = append(args, "-L", dir)
	}
	cmd := exec.CommandContext(ctx, os.Getenv(qemuVar), args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed leaves nothing
	out := port(t, cmd, "lab.out")
	rc := port(t, cmd, "lab.status")
	pokes := port(t, cmd, "lab.poke")
	begun := time.Now()
	must(t, cmd.Start())
	for _, f := range cmd.ExtraFiles {
		_ = f.Close()
	}
	var printed bytes.Buffer
	go poke(ctx, pokes)
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(io.MultiWriter(&printed, os.Stdout), out)
	}()
	code, err := io.ReadAll(io.LimitReader(rc, 64))
	werr := cmd.Wait()
	late := ctx.Err()
	cancel()
	<-copied
	t.Logf("the machine lived for %.1f s", time.Since(begun).Seconds())
	status, perr := strconv.Atoi(strings.TrimSpace(string(code)))
	if perr != nil {
		last, _ := os.ReadFile(console)
		return 0, "", fmt.Errorf("the machine died after %s: %w; it says:\n%s\n%s", time.Since(begun), errors.Join(late, err, werr), said.String(), last)
	}
	if status == 125 {
		last, _ := os.ReadFile(console)
		t.Errorf("the machine says:\n%s", last)
	}
	return status, printed.String(), nil
}

// poke interrupts the machine every second. Now and then QEMU's emulation of SVM forgets to tell the processor of an interrupt that waits in
// its APIC; any later one has it look there. Where that was the timer's, nothing is timed from then on: the machine rests for good, or a guest
// that spins until its monitor answers keeps the processor for good.
func poke(ctx context.Context, port io.Writer) {
	for tick := time.Tick(time.Second); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		if _, err := port.Write([]byte{'.'}); err != nil {
			return // it has ended
		}
	}
}

// port gives the machine a port whose other end is ours.
func port(t *testing.T, cmd *exec.Cmd, name string) net.Conn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	mine := os.NewFile(uintptr(fds[0]), name)
	conn, err := net.FileConn(mine)
	must(t, err)
	_ = mine.Close()
	t.Cleanup(func() { _ = conn.Close() })
	cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fds[1]), name))
	n := 2 + len(cmd.ExtraFiles)
	cmd.Args = append(cmd.Args, "-chardev", fmt.Sprintf("socket,id=port%d,fd=%d", n, n), "-device", fmt.Sprintf("virtserialport,chardev=port%d,name=%s", n, name))
	return conn
}

// beyondCore skips what the core leaves out.
func beyondCore(t *testing.T) {
	t.Helper()
	if os.Getenv(coreVar) == "1" {
		t.Skip("not of the core; script/test lab runs it")
	}
}

// TestLabFirecracker runs the driver's tests, the contract suite among them, on the real Firecracker.
func TestLabFirecracker(t *testing.T) {
	l := open(t)
	j := l.tests(t, "internal/engine/firecracker", "^TestLab")
	if os.Getenv(coreVar) == "1" {
		j.Args = append(j.Args, "-test.skip", "^TestLab(KilledAtEachStep|Floods|DiskFull)$|^TestLabSuite$/^(snapshot|restore_refused|killed_around)")
	}
	if status, out := l.run(t, j); status != 0 || !strings.Contains(out, "--- PASS: TestLab") {
		t.Errorf("the tests end with status %d", status)
	}
}

// TestLabFirecrackerAsUser: no root is needed, not for the network card either.
func TestLabFirecrackerAsUser(t *testing.T) {
	l := open(t)
	j := l.tests(t, "internal/engine/firecracker", "^TestLabConfined$")
	j.UID = 1000
	if status, out := l.run(t, j); status != 0 || !strings.Contains(out, "--- PASS: TestLabConfined") {
		t.Errorf("the tests end with status %d", status)
	}
}

// stranger is a program of the guest's that would be its host: it speaks to the agent's port by the loopback and by the
// guest's own number.
const stranger = `
import socket
for cid in (1, 3):
    s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    s.settimeout(20)
    try:
        s.connect((cid, 1024))
        s.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        print(cid, "answered" if s.recv(100) else "hung up", flush=True)
    except (ConnectionResetError, BrokenPipeError):
        print(cid, "hung up", flush=True)
    except OSError as e:
        print(cid, "unreachable:", e, flush=True)
`

// program is a job of a package's tests that has the whole program and the default image.
func (l lab) program(t *testing.T, pkg, pattern string, env ...string) job {
	t.Helper()
	j := l.tests(t, pkg, pattern, env...)
	program := os.Getenv("SMOLVM_BIN")
	if program == "" {
		program = filepath.Join("..", "..", "bin", "smolvm")
	}
	j.add(t, "bin/smolvm", program)
	images, err := filepath.Glob(filepath.Join(l.home, "images/*/*"))
	must(t, err)
	for _, path := range images {
		name, err := filepath.Rel(l.home, path)
		must(t, err)
		j.add(t, filepath.Join("home", name), path)
	}
	return j
}

// debian is such a job with our Debian image as its root.
func (l lab) debian(t *testing.T, pkg, pattern string, env ...string) job {
	t.Helper()
	j := l.program(t, pkg, pattern, append([]string{"SMOLVM_BIN=/work/bin/smolvm"}, env...)...)
	j.Root = true
	return j
}

// TestLabRun runs a VM as users do, with the real Firecracker: the program, its supervisor, the gateway behind the TAP.
func TestLabRun(t *testing.T) {
	l := open(t)
	j := l.program(t, "internal/sys/tail", "^$")
	j.Args = []string{
		"/work/bin/smolvm", "run", "--engine", "firecracker", "--memory", "256m", "--boot-timeout", "180s", "--allow", "a.example:443", "-v", "--", "sh", "-c",
		"uname -r; getent ahostsv4 a.example && echo resolved; modprobe vsock_loopback; setpriv --reuid 1000 --clear-groups python3 -c \"$1\"; echo done", "sh", stranger,
	}
	status, out := l.run(t, j)
	for _, want := range []string{"cloud-amd64\n", "resolved\n", "done\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not print %q", want)
		}
	}
	if strings.Contains(out, "answered") || strings.Count(out, "hung up") != 2 {
		t.Error("the agent speaks to the guest's own programs, or none could try")
	}
	if status != 0 {
		t.Errorf("smolvm run ends with status %d", status)
	}
}
