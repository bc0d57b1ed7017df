package firecracker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/firecracker/rundir"
)

// killer kills the monitor before a call that begins with at, after a while.
func killer(at string, after time.Duration, calls *atomic.Int32) func(pid int, request string) {
	return func(pid int, request string) {
		if !strings.HasPrefix(request, at) {
			return
		}
		calls.Add(1)
		if after == 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
			return
		}
		go func() {
			time.Sleep(after)
			_ = unix.Kill(pid, unix.SIGKILL)
		}()
	}
}

// asked is one request of a line, and its answer.
func asked(ctx context.Context, m engine.Machine, request string) (string, error) {
	for limit := time.Second; ; limit *= 2 { // a connection may be dead: see engine.Restorer
		conn, err := m.DialGuest(ctx)
		if err != nil {
			return "", err
		}
		_ = conn.SetDeadline(time.Now().Add(limit))
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		_, err = io.WriteString(conn, request+"\n")
		var line string
		if err == nil {
			line, err = bufio.NewReader(conn).ReadString('\n')
		}
		stop()
		_ = conn.Close()
		if err == nil || ctx.Err() != nil {
			return strings.TrimSpace(line), err
		}
		time.Sleep(min(limit/4, time.Second))
	}
}

// leftOf fails where something of a machine that is over is left.
func leftOf(t *testing.T, what string, s engine.Spec) {
	t.Helper()
	if _, err := os.Lstat(filepath.Join(filepath.Dir(s.AgentPath), rundir.Name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: its directory is left (%v)", what, err)
	}
	if pids := strings.Join(monitors(t), " "); pids != "" {
		t.Errorf("%s: monitors are left: %s", what, pids)
	}
}

// monitors are the Firecrackers that run.
func monitors(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range all {
		if b, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(b), "firecracker") {
			out = append(out, filepath.Base(filepath.Dir(path)))
		}
	}
	return out
}

// TestLabKilledAtEachStep: the real monitor, killed before and in each call of a boot, a snapshot and a restore, is told as killed at
// once, and leaves nothing; the next one works.
func TestLabKilledAtEachStep(t *testing.T) {
	k := needLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	dir := t.TempDir()
	for _, after := range []time.Duration{0, 3 * time.Millisecond} {
		for _, at := range []string{"GET /version", "PUT /machine-config", "PUT /boot-source", "PUT /drives/modules", "PUT /drives/disk", "PUT /vsock", "PUT /entropy", "PUT /actions"} {
			var calls atomic.Int32
			k.engine.before = killer(at, after, &calls)
			s := k.spec(t)
			m, err := k.engine.Start(ctx, s)
			what := fmt.Sprintf("boot, %s, %s", at, after)
			if calls.Load() != 1 || after == 0 && errdefs.ClassOf(err) != errdefs.Engine {
				t.Errorf("%s: %d calls, %v", what, calls.Load(), err)
			}
			if m != nil { // its calls were over before
				if exit, err := m.Wait(ctx); exit.Kind != engine.ExitKilled {
					t.Errorf("%s: it ended as %+v, %v", what, exit, err)
				}
				_ = m.Stop(ctx, 0)
			}
			leftOf(t, what, s)
		}
	}
	k.engine.before = nil
	source, s := k.running(ctx, t)
	if _, err := asked(ctx, source, "remember steps"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(source.Pause(ctx), source.Snapshot(ctx, dir), source.Stop(ctx, 0)); err != nil {
		t.Fatal(err)
	}
	leftOf(t, "the source", s)
	restored := func() engine.Spec {
		r := k.spec(t)
		r.Kernel, r.Initrd = nil, nil
		return r
	}
	for _, after := range []time.Duration{0, 3 * time.Millisecond, 30 * time.Millisecond} {
		for _, at := range []string{"GET /version", "PUT /snapshot/load", "PATCH /vm", "PUT /snapshot/create"} {
			var calls atomic.Int32
			k.engine.before = killer(at, after, &calls)
			s := restored()
			what := fmt.Sprintf("restore, %s, %s", at, after)
			out := t.TempDir()
			m, err := k.engine.Restore(ctx, s, dir)
			if m != nil {
				p := m.(*machine)
				if err = p.Resume(ctx); err == nil {
					err = errors.Join(p.Pause(ctx), p.Snapshot(ctx, out))
				}
				if exit, werr := m.Wait(ctx); exit.Kind != engine.ExitKilled {
					t.Errorf("%s: it ended as %+v, %v", what, exit, werr)
				}
				_ = m.Stop(ctx, 0)
			}
			if calls.Load() == 0 || after == 0 && err == nil {
				t.Errorf("%s: %d calls, %v", what, calls.Load(), err)
			}
			if left, _ := os.ReadDir(out); err != nil && len(left) > 0 {
				t.Errorf("%s: %v, and a half of a snapshot is left: %v", what, err, left)
			}
			leftOf(t, what, s)
		}
	}
	k.engine.before = nil
	m, err := k.engine.Restore(ctx, restored(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Stop(context.WithoutCancel(ctx), 0) })
	if err := m.(*machine).Resume(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := asked(ctx, m, "recall"); got != "steps" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}

// running is a machine whose guest answers. A boot that dies is tried once more, and told.
func (k kit) running(ctx context.Context, t *testing.T, change ...func(*engine.Spec)) (*machine, engine.Spec) {
	t.Helper()
	for i := 0; ; i++ {
		s := k.spec(t)
		for _, f := range change {
			f(&s)
		}
		m, err := k.engine.Start(ctx, s)
		if err == nil {
			boot, cancel := context.WithTimeout(ctx, patience)
			_, err = asked(boot, m, "echo up")
			cancel()
			if err == nil {
				t.Cleanup(func() { _ = m.Stop(context.WithoutCancel(ctx), 0) })
				return m.(*machine), s
			}
			_ = m.Stop(ctx, 0)
		}
		if i > 0 {
			t.Fatal(err)
		}
		t.Logf("TRIED ONCE MORE: a boot that died: %v", err)
	}
}

// TestLabFloods: a guest that floods its console and its socket costs nothing but its own time.
func TestLabFloods(t *testing.T) {
	k := needLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var n atomic.Int64
	m, _ := k.running(ctx, t, func(s *engine.Spec) {
		s.Console = writer(func(p []byte) (int, error) {
			n.Add(int64(len(p)))
			if len(p) > consoleBuffer {
				t.Errorf("%d bytes at once", len(p))
			}
			return 0, errors.New("full")
		})
	})
	conn, err := m.DialGuest(ctx)
	if err != nil {
		t.Fatal(err)
	}
	line, r := "print "+strings.Repeat("x", 1000)+"\n", bufio.NewReader(conn)
	for range 20 { // each byte is an exit through two hypervisors
		if _, err := io.WriteString(conn, line); err != nil {
			t.Fatal(err)
		}
		if got, err := r.ReadString('\n'); got != "ok\n" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if n.Load() < 20*1000 {
		t.Errorf("%d bytes of the console came", n.Load())
	}
	if conn, err = m.DialGuest(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "flood\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, conn, 4<<20); err != nil {
		t.Fatal(err)
	}
	before := rss(t, m.Record.PID)
	time.Sleep(2 * time.Second) // nobody reads now
	if after := rss(t, m.Record.PID); after > before+16<<10 {
		t.Errorf("the monitor holds %d KiB of what nobody reads", after-before)
	}
	if got, err := asked(ctx, m, "echo still here"); got != "still here" {
		t.Errorf("%q, %v", got, err)
	}
}

// rss is a process's memory in KiB.
func rss(t *testing.T, pid int) (kib int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	if _, err := fmt.Sscan(after, &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}

// TestLabDiskFull: a guest that fills the host's disk gets an error, we an event, and the machine lives on.
func TestLabDiskFull(t *testing.T) {
	k := needLab(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err) // the lab's job is root
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	events := make(chan engine.Event, 1024)
	m, _ := k.running(ctx, t, func(s *engine.Spec) {
		f, err := os.OpenFile(filepath.Join(dir, "disk"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		if err := f.Truncate(64 << 20); err != nil {
			t.Fatal(err)
		}
		s.Drives[1].File, s.Events = f, func(e engine.Event) { events <- e }
	})
	if got, err := asked(ctx, m, "write disk 32"); !strings.HasPrefix(got, "failed: ") {
		t.Errorf("32 MiB on 8: %q, %v", got, err)
	}
	for {
		select {
		case e := <-events:
			if e.Kind != engine.EventDiskError {
				continue
			}
			t.Logf("told: %s", e.Detail)
		case <-time.After(10 * time.Second):
			t.Error("nothing was told of it")
		}
		break
	}
	if got, err := asked(ctx, m, "echo still here"); got != "still here" {
		t.Errorf("%q, %v", got, err)
	}
}
