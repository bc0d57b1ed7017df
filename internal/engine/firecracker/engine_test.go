package firecracker

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/enginetest"
	"github.com/smolvm/smolvm/internal/engine/firecracker/fcapi"
	"github.com/smolvm/smolvm/internal/engine/firecracker/fcfake"
	"github.com/smolvm/smolvm/internal/engine/firecracker/rundir"
	"github.com/smolvm/smolvm/internal/sys/launch"
)

// fake is an engine whose Firecracker is the double, on a host whose KVM works.
func fake(t *testing.T, version, fault string) *Engine {
	t.Helper()
	path, err := fcfake.Install(t.TempDir(), version, fault)
	if err != nil {
		t.Fatal(err)
	}
	e := New(Options{Program: path})
	e.kvm = func() engine.Accel { return engine.Accel{Name: "kvm"} }
	return e
}

func fakeSpec(t *testing.T) engine.Spec {
	t.Helper()
	dir := t.TempDir()
	open := func(name string, size int64) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		return f
	}
	return engine.Spec{
		Name: "fake", CPUs: 1, MemoryMiB: 128, Accel: "kvm", Kernel: open("kernel", 4096), Initrd: open("initrd", 4096),
		Drives: []engine.Drive{
			{ID: "image", File: open("image", 4096), ReadOnly: true},
			{ID: "disk", File: open("disk", 64<<20), Limit: engine.IOLimit{BytesPerSecond: 1 << 30, OpsPerSecond: 1000}},
			{ID: "more-disk", File: open("more", 4096)},
		},
		AgentPath: filepath.Join(dir, "agent.sock"),
	}
}

// TestSuite: the driver keeps the contract, as far as that can be seen without a real Firecracker.
func TestSuite(t *testing.T) {
	enginetest.Run(t, enginetest.Config{Engine: fake(t, "", ""), Spec: fakeSpec, Patience: time.Minute})
}

// TestVersions: what is too old or known to be broken is refused by name, what is newer is used untested.
func TestVersions(t *testing.T) {
	for _, tt := range []struct {
		version, err string
		tested       bool
	}{
		{"1.12.1", "", true},
		{"1.12.0", "", false},
		{"1.16.1", "", false},
		{"2.0.0", "", false},
		{"1.11.9", "is Firecracker 1.11.9: 1.12.0 or newer is needed", false},
		{"1.16.0", "is Firecracker 1.16.0: no guest of it answers after a restore", false},
		{"?", "it is no Firecracker", false},
	} {
		caps, err := fake(t, tt.version, "").Probe(t.Context())
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || errdefs.ClassOf(err) != errdefs.Host || errdefs.RemedyOf(err) == "" {
				t.Errorf("%s: %v, want %q of class host with a remedy", tt.version, err, tt.err)
			}
			continue
		}
		if err != nil || caps.Version != tt.version || caps.Tested != tt.tested {
			t.Errorf("%s: %+v, %v", tt.version, caps, err)
		}
	}
	_, err := New(Options{Program: "/nonexistent/firecracker"}).Probe(t.Context())
	if errdefs.ClassOf(err) != errdefs.Host || errdefs.RemedyOf(err) != installRemedy {
		t.Errorf("no program: %v", err)
	}
}

// TestStartFaults: what goes wrong while it starts is told, and nothing is left.
func TestStartFaults(t *testing.T) {
	for _, tt := range []struct {
		fault, err string
		class      errdefs.Class
		limit      time.Duration
	}{
		{"mute", "wait for its socket api.sock", errdefs.Timeout, 5 * time.Second},
		{"deaf", "GET /version: no answer from Firecracker", errdefs.Timeout, 5 * time.Second},
		{"dies", "bad syscall", errdefs.Engine, time.Minute},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()
			e, s := fake(t, "", tt.fault), fakeSpec(t)
			if _, err := e.Probe(t.Context()); err != nil { // which takes its time, too
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
			defer cancel()
			m, err := e.Start(ctx, s)
			if err == nil || !strings.Contains(err.Error(), tt.err) || errdefs.ClassOf(err) != tt.class || errors.Is(err, engine.ErrKilled) {
				t.Errorf("%v (class %s), want %q of class %s", err, errdefs.ClassOf(err), tt.err, tt.class)
			}
			if m != nil {
				_ = m.Stop(t.Context(), 0)
			}
			if left, _ := os.ReadDir(filepath.Join(filepath.Dir(s.AgentPath), rundir.Name)); left != nil {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// TestKilledAtEachStep: a monitor that is killed while it is told what to run is told as such, at once, and leaves nothing.
func TestKilledAtEachStep(t *testing.T) {
	for _, step := range []string{"version", "machine-config", "boot-source", "drives", "vsock", "entropy", "actions"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			s := fakeSpec(t)
			before := s.Drives[1].File
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			go killAt(ctx, s)
			m, err := fake(t, "", "killed-at-"+step).Start(ctx, s)
			if errdefs.ClassOf(err) != errdefs.Engine || !errors.Is(err, engine.ErrKilled) || ctx.Err() != nil {
				t.Errorf("%v of class %s, killed: %v", err, errdefs.ClassOf(err), errors.Is(err, engine.ErrKilled))
			}
			if m != nil {
				t.Error("there is a machine")
			}
			if _, err := os.Lstat(filepath.Join(filepath.Dir(s.AgentPath), rundir.Name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("its directory is left (%v)", err)
			}
			if _, err := before.Stat(); err != nil {
				t.Errorf("the caller's file: %v", err)
			}
		})
	}
}

// killAt kills the monitor of a spec that waits to be killed, once it does.
func killAt(ctx context.Context, s engine.Spec) {
	path := filepath.Join(filepath.Dir(s.AgentPath), rundir.Name, fcfake.KillSocket)
	for ctx.Err() == nil {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		raw, err := c.(*net.UnixConn).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) {
				if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
					_ = unix.Kill(int(peer.Pid), unix.SIGKILL)
				}
			})
		}
		_ = c.Close()
		if err == nil {
			return
		}
	}
}

// TestFlood: a guest that floods its console is read as fast as it writes, and a writer that fails does not stop it.
func TestFlood(t *testing.T) {
	s := fakeSpec(t)
	var n atomic.Int64
	s.Console = writer(func(p []byte) (int, error) {
		n.Add(int64(len(p)))
		if len(p) > consoleBuffer {
			t.Errorf("%d bytes at once", len(p))
		}
		return 0, errors.New("full")
	})
	m, err := fake(t, "", "").Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Stop(t.Context(), 0) })
	conn, err := m.DialGuest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	line := "print " + strings.Repeat("x", 4000) + "\n"
	for range 500 {
		if _, err := io.WriteString(conn, line); err != nil {
			t.Fatal(err)
		}
		if got, err := r.ReadString('\n'); got != "ok\n" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	_ = m.Stop(t.Context(), 0)
	if n.Load() < 500*4000 {
		t.Errorf("%d bytes came", n.Load())
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// TestRefusal: what Firecracker does not take is the engine's failure, with its words: the caller's part was looked at before.
func TestRefusal(t *testing.T) {
	s := fakeSpec(t)
	s.Drives[0].File, s.Drives[0].ReadOnly = s.Kernel, true
	f, err := os.Open(t.TempDir()) // no disk
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	s.Drives[2].File = f
	_, err = fake(t, "", "").Start(t.Context(), s)
	if errdefs.ClassOf(err) != errdefs.Engine || !strings.Contains(err.Error(), "PUT /drives/more_disk: Firecracker refuses: Drive config error") {
		t.Errorf("%v of class %s", err, errdefs.ClassOf(err))
	}
}

// TestTripleFault: Firecracker's code 0 is no proof of an orderly end.
func TestTripleFault(t *testing.T) {
	m, err := fake(t, "", "triple").Start(t.Context(), fakeSpec(t))
	if err != nil {
		t.Fatal(err)
	}
	exit, err := m.Wait(t.Context())
	if err != nil || exit.Kind != engine.ExitFailed || exit.Code != 0 || !strings.Contains(exit.Detail, "triple fault") || !strings.Contains(exit.Detail, "KVM_EXIT_SHUTDOWN") {
		t.Errorf("%+v, %v", exit, err)
	}
}

// TestDialWithoutDriver: a guest that never answers is waited for as long as the caller wants, and no longer.
func TestDialWithoutDriver(t *testing.T) {
	m, err := fake(t, "", "no-driver").Start(t.Context(), fakeSpec(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Stop(t.Context(), 0) })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := m.DialGuest(ctx); errdefs.ClassOf(err) != errdefs.Unavailable && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

// TestImpossible: what Firecracker has not is refused before anything is made.
func TestImpossible(t *testing.T) {
	e := fake(t, "", "")
	for name, change := range map[string]func(*engine.Spec){
		"accelerator": func(s *engine.Spec) { s.Accel = "tcg" },
		"CPUs":        func(s *engine.Spec) { s.CPUs = 33 },
	} {
		s := fakeSpec(t)
		change(&s)
		if _, err := e.Start(t.Context(), s); errdefs.ClassOf(err) != errdefs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	e.kvm = func() engine.Accel { return engine.Accel{Name: "kvm", Missing: "it is not there", Remedy: "buy one"} }
	if _, err := e.Start(t.Context(), fakeSpec(t)); errdefs.ClassOf(err) != errdefs.Host || errdefs.RemedyOf(err) != "buy one" {
		t.Errorf("without KVM: %v", err)
	}
}

// TestOwner: the monitor owns the writable disk while it lives, and not a moment longer.
func TestOwner(t *testing.T) {
	if !launch.IsRoot() {
		t.Skip("only root gives monitors a user id")
	}
	owner := func(f *os.File) uint32 {
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return st.Sys().(*syscall.Stat_t).Uid
	}
	s := &starting{spec: &engine.Spec{UID: 1_900_065_535}}
	f := fakeSpec(t).Drives[1].File
	before := owner(f)
	if err := f.Chmod(0o604); err != nil {
		t.Fatal(err)
	}
	if err := s.own(f, true); err != nil || owner(f) != before {
		t.Errorf("a file that is only read: owner %d, %v", owner(f), err)
	}
	if err := s.own(f, false); err != nil || owner(f) != s.spec.UID {
		t.Errorf("owner %d, %v", owner(f), err)
	}
	s.owned.Run()
	if owner(f) != before {
		t.Errorf("afterwards it is still %d's", owner(f))
	}
}

// TestCard: the other end of the guest's card is handed over before the guest runs.
func TestCard(t *testing.T) {
	if f, err := os.OpenFile(launch.TunDevice, os.O_RDWR, 0); err != nil {
		t.Skipf("no TAPs here: %v", err)
	} else {
		_ = f.Close()
	}
	e, s := fake(t, "", ""), fakeSpec(t)
	var wire *os.File
	s.NIC = &engine.NIC{MAC: []byte{2, 0x53, 0x4d, 0, 0, 1}, MTU: 65520, Take: func(f *os.File) error { wire = f; return nil }}
	m, err := e.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	_ = m.Stop(t.Context(), 0)
	if wire == nil {
		t.Fatal("nobody got the wire")
	}
	_ = wire.Close()

	refused := errors.New("no, thanks")
	s.NIC.Take = func(f *os.File) error { _ = f.Close(); return refused }
	if _, err := e.Start(t.Context(), s); !errors.Is(err, refused) {
		t.Errorf("a wire that nobody wants: %v", err)
	}
	s.NIC.Take = nil
	if _, err := e.Start(t.Context(), s); errdefs.ClassOf(err) != errdefs.Invalid {
		t.Errorf("no taker: %v", err)
	}
}

// TestDriveOf: only a disk that nobody needs afterwards is not flushed.
func TestDriveOf(t *testing.T) {
	kept := fcapi.Drive{ID: "disk", Path: "/proc/self/fd/7", Cache: "Writeback"}
	if got := driveOf(engine.Drive{ID: "disk"}, 7); got != kept {
		t.Errorf("%+v", got)
	}
	gone := kept
	gone.Cache = "Unsafe"
	if got := driveOf(engine.Drive{ID: "disk", Disposable: true}, 7); got != gone {
		t.Errorf("%+v", got)
	}
}
