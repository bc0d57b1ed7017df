package firecracker

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/enginetest"
	"github.com/smolvm/smolvm/internal/engine/firecracker/rundir"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/sys/launch"
)

// patience is for a boot below two hypervisors on a busy machine.
const patience = 4 * time.Minute

// kit is what machines of the real Firecracker boot from.
type kit struct {
	engine *Engine
	boot   image.BootFiles
}

// needLab skips unless the test runs in the lab's machine, or on one that is as good: test/lab says so.
func needLab(t *testing.T) kit {
	t.Helper()
	if os.Getenv("SMOLVM_LAB_INSIDE") != "1" {
		t.Skip("needs a working KVM and Firecracker; script/test lab runs it")
	}
	guest, err := os.ReadFile(os.Getenv("SMOLVM_TESTGUEST"))
	if err != nil {
		t.Fatal(err)
	}
	images := image.New(image.Options{Home: os.Getenv("SMOLVM_HOME"), Version: "lab"})
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
		t.Errorf("Firecracker %s is none of the tested %v", caps.Version, tested())
	}
	return kit{engine: e, boot: boot}
}

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
	s := engine.Spec{
		Name: "suite", CPUs: 1, MemoryMiB: 192, Accel: "kvm", Cmdline: "quiet loglevel=4",
		Kernel: open(k.boot.Kernel, os.O_RDONLY), Initrd: open(k.boot.Initrd, os.O_RDONLY),
		Drives:    []engine.Drive{{ID: "modules", File: open(k.boot.Modules, os.O_RDONLY), ReadOnly: true}, {ID: "disk", File: disk}},
		AgentPath: filepath.Join(dir, "agent.sock"),
	}
	if launch.IsRoot() {
		s.UID = 1_900_065_535
	}
	return s
}

// TestLabSuite: the real Firecracker keeps the contract.
func TestLabSuite(t *testing.T) {
	k := needLab(t)
	enginetest.Run(t, enginetest.Config{Engine: k.engine, Spec: k.spec, Patience: patience, Flaky: true})
}

// root checks that a monitor's root holds what it needs and nothing else, and that its sockets are ours.
func root(t *testing.T, pid int) {
	t.Helper()
	at := filepath.Join("/proc", strconv.Itoa(pid), "root")
	var files []string
	err := filepath.WalkDir(at+"/", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, at)
		if !d.IsDir() {
			files = append(files, name)
		}
		if name == "/proc" {
			return fs.SkipDir
		}
		return nil
	})
	slices.Sort(files)
	want := []string{"/dev/kvm", "/dev/net/tun", "/dev/null", "/run/" + rundir.APISocket, "/run/" + rundir.VsockSocket, os.Getenv(programVar)}
	if _, err := os.Stat("/etc/ld.so.cache"); err == nil {
		want = append(want, "/etc/ld.so.cache")
	}
	slices.Sort(want)
	if err != nil || !slices.Equal(files, want) {
		t.Errorf("in its root are %v (%v), want %v", files, err, want)
	}
	mine, err := os.Readlink("/proc/self/ns/pid")
	if its, err2 := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns/pid")); err != nil || err2 != nil || its == mine {
		t.Errorf("it is in our PID namespace: %v, %v", err, err2)
	}
}

// TestLabConfined: what the handle claims is so, as far as another process can see it; and a drive's limit holds.
func TestLabConfined(t *testing.T) {
	k := needLab(t)
	s := k.spec(t)
	s.Drives[1].Limit = engine.IOLimit{BytesPerSecond: 4 << 20}
	carded := false
	s.NIC = &engine.NIC{MAC: net.HardwareAddr{2, 0x53, 0x4d, 0, 0, 1}, MTU: 65520, Take: func(f *os.File) error {
		carded = true
		return f.Close()
	}}
	begun := time.Now()
	m, err := k.engine.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Stop(t.Context(), 0) })
	started := time.Since(begun)
	conn, err := m.DialGuest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started after %s, the guest answers after %s", started, time.Since(begun))
	h := m.Handle()
	t.Logf("in force: %v; missing: %v", h.Confinement, h.Unconfined)
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(h.PID), "status"))
	if err != nil {
		t.Fatal(err)
	}
	wants := []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"}
	if s.UID != 0 {
		wants = append(wants, "Uid:\t1900065535\t1900065535\t1900065535", "Groups:\t \n")
	}
	for _, want := range wants {
		if !strings.Contains(string(status), want) {
			t.Errorf("/proc/PID/status lacks %q:\n%s", want, status)
		}
	}
	if len(h.Unconfined) > 0 || !carded {
		t.Errorf("not in force: %v; the card's other end came: %v", h.Unconfined, carded)
	}
	root(t, h.PID)
	begun = time.Now()
	if _, err := io.WriteString(conn, "write disk 16\n"); err != nil {
		t.Fatal(err)
	}
	var answer string
	if _, err := fmt.Fscanln(conn, &answer); err != nil || answer != "ok" {
		t.Fatalf("%q, %v", answer, err)
	}
	if took := time.Since(begun); took < 2*time.Second {
		t.Errorf("16 MiB at 4 MiB/s took %s", took)
	}
}
