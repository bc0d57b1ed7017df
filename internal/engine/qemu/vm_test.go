package qemu

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/enginetest"
	"github.com/smolvm/smolvm/internal/engine/kvm"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/apt"
	"github.com/smolvm/smolvm/internal/image/kernel"
	"github.com/smolvm/smolvm/internal/sys/launch"
)

// The test program is the launcher, too: it is what the engine re-executes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == launch.Command {
		os.Exit(launch.Main())
	}
	os.Exit(m.Run())
}

// patience is for a boot under emulation on a busy machine.
const patience = 3 * time.Minute

// kit is what the suite's machines boot from.
type kit struct {
	engine *Engine
	boot   image.BootFiles
	accel  string
}

func needVM(t *testing.T) kit {
	t.Helper()
	if os.Getenv("SMOLVM_VM_TESTS") != "1" {
		t.Skip("boots virtual machines; script/test runs it")
	}
	guest, err := os.ReadFile(testguest(t))
	if err != nil {
		t.Fatal(err)
	}
	home := os.Getenv("SMOLVM_HOME")
	if home == "" {
		dir, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		home = filepath.Join(dir, ".local/share/smolvm")
	}
	archive, err := apt.NewArchive(os.Getenv("SMOLVM_DEBIAN_MIRROR"))
	if err != nil {
		t.Fatal(err)
	}
	images := image.New(image.Options{Home: home, Version: "test", Kernels: kernel.Source{Archive: archive}})
	pinned, err := images.EnsureKernel(t.Context(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := images.BootFiles(t.Context(), pinned, guest)
	if err != nil {
		t.Fatal(err)
	}
	e := New(Options{})
	caps, err := e.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !caps.Tested {
		t.Errorf("QEMU %s is none of the tested %v", caps.Version, testedSeries())
	}
	k := kit{engine: e, boot: boot, accel: caps.Accels[len(caps.Accels)-1].Name}
	if inLab() {
		k.accel = kvm.Name
	}
	return k
}

// inLab reports whether this is the machine of test/lab, which has a working KVM.
func inLab() bool { return os.Getenv("SMOLVM_LAB_INSIDE") == "1" }

// testguest returns the suite's guest: the VM lane has built it, at home it is built here.
func testguest(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("SMOLVM_TESTGUEST"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "testguest")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/smolvm/smolvm/internal/engine/enginetest/testguest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// spec is a machine with a card and a disk. Its files are closed at the end of the test.
func (k kit) spec(t *testing.T) engine.Spec {
	t.Helper()
	dir := t.TempDir()
	open := func(path string, flag int) *os.File {
		f, err := os.OpenFile(path, flag, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	disk := open(filepath.Join(dir, "disk"), os.O_RDWR|os.O_CREATE)
	if err := disk.Truncate(64 << 20); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	listener, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "net"), os.NewFile(uintptr(pair[1]), "nic")
	t.Cleanup(func() { _, _, _, _ = l.Close(), listener.Close(), ours.Close(), theirs.Close() })
	s := engine.Spec{
		Name: "suite", CPUs: 1, MemoryMiB: 192, Accel: k.accel, Cmdline: "loglevel=4",
		Kernel: open(k.boot.Kernel, os.O_RDONLY), Initrd: open(k.boot.Initrd, os.O_RDONLY),
		Drives:        []engine.Drive{{ID: "modules", File: open(k.boot.Modules, os.O_RDONLY), ReadOnly: true}, {ID: "disk", File: disk}},
		NIC:           &engine.NIC{FD: theirs, MAC: net.HardwareAddr{2, 0x53, 0x4d, 0, 0, 1}, MTU: 65520},
		AgentListener: listener, AgentPath: path,
	}
	if launch.IsRoot() {
		s.UID = 1_900_065_535
	}
	return s
}

func TestVMSuite(t *testing.T) {
	k := needVM(t)
	enginetest.Run(t, enginetest.Config{Engine: k.engine, Spec: k.spec, Patience: patience, Flaky: inLab()})
}

// TestVMFullDisk: what the host cannot write is an error in the guest and an event, and the machine goes on.
func TestVMFullDisk(t *testing.T) {
	k := needVM(t)
	s := k.spec(t)
	s.MaxFileBytes = 1 << 20
	events := make(chan engine.Event, 64)
	s.Events = func(e engine.Event) {
		select {
		case events <- e:
		default:
		}
	}
	m, err := k.engine.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Stop(t.Context(), 0) })
	conn, err := m.DialGuest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(request string) string {
		if _, err := conn.Write([]byte(request + "\n")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1024)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	if got := ask("write disk 8"); !strings.Contains(got, "failed") {
		t.Errorf("a write over the limit: %s", got)
	}
	if got := ask("echo alive"); got != "alive\n" {
		t.Errorf("after the error: %s", got)
	}
	for {
		select {
		case e := <-events:
			if e.Kind == engine.EventDiskError {
				if !strings.HasPrefix(e.Detail, "disk: write: ") {
					t.Errorf("the event says %q", e.Detail)
				}
				return
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no event tells of the error")
		}
	}
}

// TestVMDiskRate: a limited drive is no faster than its limit. That it is slower than some time would depend on the host;
// that it is not faster does not.
func TestVMDiskRate(t *testing.T) {
	k := needVM(t)
	s := k.spec(t)
	s.Drives[1].Limit = engine.IOLimit{BytesPerSecond: 4 << 20}
	m, err := k.engine.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Stop(t.Context(), 0) })
	conn, err := m.DialGuest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if _, err := io.WriteString(conn, "write disk 16\n"); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 64)
	n, err := conn.Read(answer)
	if err != nil || string(answer[:n]) != "ok\n" {
		t.Fatalf("%q, %v", answer[:n], err)
	}
	if took := time.Since(begun); took < 2*time.Second { // 4 s without the burst that the limit allows
		t.Errorf("16 MiB at 4 MiB/s took %s", took)
	}
}

// TestVMCoreConfined: what the handle claims is so, as far as another process can see it.
func TestVMCoreConfined(t *testing.T) {
	k := needVM(t)
	s := k.spec(t)
	m, err := k.engine.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Stop(t.Context(), 0) })
	h := m.Handle()
	t.Logf("in force: %v; missing: %v", h.Confinement, h.Unconfined)
	proc := filepath.Join("/proc", strconv.Itoa(h.PID))
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		t.Fatal(err)
	}
	wants := []string{"NoNewPrivs:\t1", "Seccomp:\t2"}
	if s.UID != 0 {
		wants = append(wants, "Uid:\t1900065535\t1900065535\t1900065535", "Gid:\t1900065535\t1900065535\t1900065535", "Groups:\t \n", "CapEff:\t0000000000000000")
	}
	for _, want := range wants {
		if !strings.Contains(string(status), want) {
			t.Errorf("/proc/PID/status lacks %q:\n%s", want, status)
		}
	}
	for _, c := range []string{"root", "mntns", "pidns", "netns", "seccomp", "no capabilities", "no-new-privs"} {
		if !slices.Contains(h.Confinement, c) {
			t.Errorf("%s is not in force: %v, %v", c, h.Confinement, h.Unconfined)
		}
	}
	mine, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	// As a user the monitor's namespaces are another user namespace's, which may hide them.
	if its, err := os.Readlink(filepath.Join(proc, "ns/net")); err == nil && its == mine || err != nil && !errors.Is(err, fs.ErrPermission) {
		t.Errorf("network namespace %s, ours %s, %v", its, mine, err)
	}
	// Nothing of ours was opened by path: every descriptor of a file is one that it inherited. Only KVM it opens itself.
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		if strings.HasPrefix(to, "/dev/") && to != "/dev/null" && !(k.accel == kvm.Name && to == kvm.Device) {
			t.Errorf("descriptor %s is %s", fd.Name(), to)
		}
	}
}
