package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/sys/filecopy"
)

// restorer skips where there are no snapshots.
func restorer(t *testing.T, c Config) engine.Restorer {
	t.Helper()
	r, ok := c.Engine.(engine.Restorer)
	if !ok {
		t.Skip("it takes no snapshots")
	}
	return r
}

// taken is a snapshot with the disk that belongs to it.
type taken struct {
	dir  string
	disk *os.File
}

// take pauses m, and takes its snapshot.
func (m *machine) take(t *testing.T) taken {
	t.Helper()
	s := taken{dir: t.TempDir()}
	if err := m.Machine.(engine.Pauser).Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.snapshot(t, s.dir); err != nil {
		t.Fatal(err)
	}
	s.disk = copied(t, disk(&m.spec).File)
	return s
}

func (m *machine) snapshot(t *testing.T, dir string) error {
	t.Helper()
	s, ok := m.Machine.(engine.Snapshotter)
	if !ok {
		t.Fatal("its engine restores what its machines do not write")
	}
	ctx, cancel := context.WithTimeout(t.Context(), m.patience)
	defer cancel()
	return s.Snapshot(ctx, dir)
}

// disk is the writable drive.
func disk(s *engine.Spec) *engine.Drive {
	for i := range s.Drives {
		if s.Drives[i].ID == "disk" {
			return &s.Drives[i]
		}
	}
	return nil
}

func copied(t *testing.T, from *os.File) *os.File {
	t.Helper()
	to, err := os.Create(filepath.Join(t.TempDir(), "disk")) //nolint:gosec // a test's own file
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = to.Close() })
	if err := filecopy.Clone(t.Context(), to, from); err != nil {
		t.Fatal(err)
	}
	return to
}

// copy copies the snapshot's files into a directory of their own.
func (s taken) copy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		from, err := os.Open(filepath.Join(s.dir, e.Name())) //nolint:gosec // a test's own file
		if err != nil {
			t.Fatal(err)
		}
		to, err := os.Create(filepath.Join(dir, e.Name())) //nolint:gosec // a test's own file
		if err != nil {
			t.Fatal(err)
		}
		if err := filecopy.Clone(t.Context(), to, from); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(to.Chmod(0o644), to.Close(), from.Close()); err != nil { // monitors with ids of their own read it
			t.Fatal(err)
		}
	}
	return dir
}

// restore makes a machine of a snapshot, which runs.
func restore(t *testing.T, c Config, s taken) *machine {
	t.Helper()
	r := restorer(t, c)
	return produce(t, c, func(ctx context.Context, spec engine.Spec) (engine.Machine, error) {
		m, err := r.Restore(ctx, spec, s.dir)
		if err != nil {
			return nil, err
		}
		if err := m.(engine.Pauser).Resume(ctx); err != nil {
			_ = m.Stop(ctx, 0)
			return nil, err
		}
		return m, nil
	}, s.bring(t))
}

// bring gives a machine the snapshot's disk, and none of what it would boot from.
func (s taken) bring(t *testing.T) func(*engine.Spec) {
	return func(spec *engine.Spec) {
		spec.Kernel, spec.Initrd, spec.Cmdline = nil, nil, ""
		disk(spec).File = copied(t, s.disk)
	}
}

// testSnapshot: the machine goes on after its snapshot, and two more go on from there side by side, each for itself.
func testSnapshot(t *testing.T, c Config) {
	restorer(t, c)
	m := start(t, c)
	s := m.dial(t)
	s.want(t, "remember blue", "ok")
	s.want(t, "write disk 1", "ok")
	snap := m.take(t)
	if err := m.Machine.(engine.Pauser).Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = m.redial(t) // whether the former stream lives on is the engine's
	s.want(t, "recall", "blue")
	s.want(t, "remember green", "ok")

	clones := make([]*machine, 2)
	var all sync.WaitGroup
	for i := range clones {
		all.Go(func() { clones[i] = restore(t, c, snap) })
	}
	all.Wait()
	if t.Failed() || clones[0] == nil || clones[1] == nil {
		t.FailNow()
	}
	streams := make([]*stream, len(clones))
	for i, k := range clones {
		k.event(t, engine.EventResumed)
		streams[i] = k.redial(t)
		streams[i].want(t, "recall", "blue")
		streams[i].want(t, fmt.Sprintf("remember clone %d", i), "ok")
		if h := k.Handle(); h.Engine != c.Engine.Name() || h.PID != 0 && h.PID == m.Handle().PID {
			t.Errorf("handle %+v", h)
		}
	}
	streams[0].want(t, "write disk 2", "ok")
	for i := range clones {
		streams[i].want(t, "recall", fmt.Sprintf("clone %d", i))
	}
	s.want(t, "recall", "green")
	if a, b := content(t, disk(&clones[0].spec).File), content(t, disk(&clones[1].spec).File); bytes.Equal(a, b) || !bytes.Equal(b, content(t, snap.disk)) {
		t.Error("a clone's write is not in its own disk alone")
	}
	streams[0].tell(t, "poweroff")
	clones[0].end(t, engine.ExitPoweroff)
	streams[1].want(t, "echo still here", "still here")

	again := clones[1].take(t) // a snapshot of what came from one
	k := restore(t, c, again)
	k.redial(t).want(t, "recall", "clone 1")
}

func content(t *testing.T, f *os.File) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 4<<20))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testSnapshotRefused: what would be no snapshot is refused, and changes nothing.
func testSnapshotRefused(t *testing.T, c Config) {
	restorer(t, c)
	m := start(t, c)
	m.dial(t).want(t, "echo up", "up")
	dir := t.TempDir()
	if err := m.snapshot(t, dir); errdefs.ClassOf(err) != errdefs.WrongState {
		t.Errorf("of a machine that runs: %v", err)
	}
	if err := m.Machine.(engine.Pauser).Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.snapshot(t, filepath.Join(dir, "absent")); errdefs.ClassOf(err) != errdefs.Invalid {
		t.Errorf("into nothing: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "memory"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.snapshot(t, dir); errdefs.ClassOf(err) != errdefs.AlreadyExists {
		t.Errorf("over what is there: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "memory")); string(b) != "mine" { //nolint:gosec // a test's own file
		t.Errorf("it is not any more: %q, %v", b, err)
	}
	if err := m.Machine.(engine.Pauser).Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.redial(t).want(t, "echo on", "on")
	if err := m.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := m.snapshot(t, t.TempDir()); errdefs.ClassOf(err) != errdefs.WrongState {
		t.Errorf("of a machine that has ended: %v", err)
	}
}

// damage does something to the files of a snapshot.
func damage(name string, how func(path string) error) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := how(path); err != nil {
			t.Fatal(err)
		}
	}
}

func replace(old, now string) func(path string) error {
	return func(path string) error {
		b, err := os.ReadFile(path) //nolint:gosec // a test's own file
		if err != nil {
			return err
		}
		changed := bytes.Replace(b, []byte(old), []byte(now), 1)
		if bytes.Equal(b, changed) {
			return fmt.Errorf("there is no %q", old)
		}
		return os.WriteFile(path, changed, 0o600) //nolint:gosec // a test's own file
	}
}

func flip(path string) error {
	b, err := os.ReadFile(path) //nolint:gosec // a test's own file
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 0x10
	return os.WriteFile(path, b, 0o600) //nolint:gosec // a test's own file
}

// testRestoreRefused: a snapshot that is damaged, or another machine's, is refused before anything runs, and nothing is left.
func testRestoreRefused(t *testing.T, c Config) {
	r := restorer(t, c)
	m := start(t, c)
	m.dial(t).want(t, "remember red", "ok")
	snap := m.take(t)
	for name, tt := range map[string]struct {
		class  errdefs.Class
		damage func(t *testing.T, dir string)
		change func(*engine.Spec)
	}{
		"no record":         {errdefs.Engine, damage("snapshot.json", os.Remove), nil},
		"another record":    {errdefs.Engine, damage("snapshot.json", replace(`"version": 1`, `"version": 2`)), nil},
		"no JSON":           {errdefs.Engine, damage("snapshot.json", replace(`{`, `[`)), nil},
		"another engine":    {errdefs.Engine, damage("snapshot.json", replace(c.Engine.Name(), "other")), nil},
		"another version":   {errdefs.Engine, damage("snapshot.json", replace(`"engine_version": "`, `"engine_version": "9`)), nil},
		"another host":      {errdefs.Engine, damage("snapshot.json", replace(`"host": "`, `"host": "other `)), nil},
		"no state":          {errdefs.Engine, damage("state", os.Remove), nil},
		"a damaged state":   {errdefs.Engine, damage("state", flip), nil},
		"a shorter memory":  {errdefs.Engine, damage("memory", func(p string) error { return os.Truncate(p, 4096) }), nil},
		"memory elsewhere":  {errdefs.Engine, damage("memory", func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/etc/passwd", p)) }), nil},
		"another size":      {errdefs.Invalid, nil, func(s *engine.Spec) { s.MemoryMiB *= 2 }},
		"more processors":   {errdefs.Invalid, nil, func(s *engine.Spec) { s.CPUs++ }},
		"fewer drives":      {errdefs.Invalid, nil, func(s *engine.Spec) { s.Drives = s.Drives[1:] }},
		"another drive":     {errdefs.Invalid, nil, func(s *engine.Spec) { disk(s).ID = "other" }},
		"a read-only drive": {errdefs.Invalid, nil, func(s *engine.Spec) { disk(s).ReadOnly = true }},
		"a card": {errdefs.Invalid, nil, func(s *engine.Spec) {
			s.NIC = &engine.NIC{Take: (*os.File).Close, MAC: []byte{2, 0, 0, 0, 0, 1}, MTU: 1500}
		}},
		"no socket": {errdefs.Invalid, nil, func(s *engine.Spec) { s.AgentPath = "" }},
	} {
		dir := snap.copy(t)
		if tt.damage != nil {
			tt.damage(t, dir)
		}
		spec := c.Spec(t)
		snap.bring(t)(&spec)
		at := filepath.Dir(spec.AgentPath)
		before := names(t, at)
		if tt.change != nil {
			tt.change(&spec)
		}
		got, err := r.Restore(t.Context(), spec, dir)
		if errdefs.ClassOf(err) != tt.class {
			t.Errorf("%s: %v of class %s, want %s", name, err, errdefs.ClassOf(err), tt.class)
		}
		if got != nil {
			_ = got.Stop(t.Context(), 0)
			t.Errorf("%s: there is a machine", name)
		}
		if after := names(t, at); after != before {
			t.Errorf("%s: left %s, before it was %s", name, after, before)
		}
	}
	restore(t, c, snap).redial(t).want(t, "recall", "red") // the snapshot itself was not touched
}

// names are the names in a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(entries)
}

// small is a directory on a file system of that many KiB.
func small(t *testing.T, kib int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dk", kib)); err != nil {
		t.Skipf("no small file system here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// testSnapshotFull: where there is no room, the snapshot fails with that reason, leaves nothing, and the machine goes on.
func testSnapshotFull(t *testing.T, c Config) {
	restorer(t, c)
	for name, tight := range map[string]func(t *testing.T) (dir string, change func(*engine.Spec)){
		"for the snapshot": func(t *testing.T) (string, func(*engine.Spec)) { return small(t, 64), func(*engine.Spec) {} },
		"for the monitor": func(t *testing.T) (string, func(*engine.Spec)) {
			at := small(t, 512)
			return t.TempDir(), func(s *engine.Spec) { s.AgentPath = filepath.Join(at, "agent.sock") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, change := tight(t)
			m := start(t, c, change)
			if name == "for the monitor" && m.Handle().PID == 0 {
				t.Skip("no process")
			}
			s := m.dial(t)
			s.want(t, "remember much", "ok")
			if err := m.Machine.(engine.Pauser).Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := m.snapshot(t, dir); errdefs.ClassOf(err) != errdefs.Exhausted {
				t.Errorf("%v of class %s", err, errdefs.ClassOf(err))
			}
			if left := names(t, dir); left != "[]" {
				t.Errorf("left: %s", left)
			}
			if err := m.Machine.(engine.Pauser).Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.redial(t).want(t, "recall", "much")
		})
	}
}

// testSnapshotKilled: a monitor that is killed while it writes is told as such, and there is no half of a snapshot; killed
// after a restore it leaves the snapshot to others.
func testSnapshotKilled(t *testing.T, c Config) {
	restorer(t, c)
	m := start(t, c)
	m.dial(t).want(t, "remember white", "ok")
	if m.Handle().PID == 0 {
		t.Skip("no process")
	}
	snap := m.take(t)
	for _, after := range []time.Duration{0, 5 * time.Millisecond, 50 * time.Millisecond} {
		k := restore(t, c, snap)
		if err := k.Machine.(engine.Pauser).Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		at := filepath.Dir(k.spec.AgentPath)
		dir := t.TempDir()
		go func() {
			time.Sleep(after)
			_ = unix.Kill(k.Handle().PID, unix.SIGKILL)
		}()
		err := k.snapshot(t, dir)
		if left := names(t, dir); err != nil && left != "[]" {
			t.Errorf("killed after %s: %v, and left: %s", after, err, left)
		}
		k.end(t, engine.ExitKilled)
		if _, err := os.Lstat(filepath.Join(at, "monitor")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("killed after %s: its directory is left (%v)", after, err)
		}
	}
	restore(t, c, snap).redial(t).want(t, "recall", "white")
}
