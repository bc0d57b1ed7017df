package firecracker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/firecracker/rundir"
	"github.com/smolvm/smolvm/internal/engine/kvm"
	"github.com/smolvm/smolvm/internal/sys/launch"
)

// paused starts a machine of the double, with a fault, that stands still.
func paused(t *testing.T, fault string, change ...func(*engine.Spec)) *machine {
	t.Helper()
	s := fakeSpec(t)
	for _, f := range change {
		f(&s)
	}
	if strings.HasPrefix(fault, "killed-at-") {
		go killAt(t.Context(), s)
	}
	m, err := fake(t, "", fault).Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Stop(context.WithoutCancel(t.Context()), 0) })
	if err := m.(*machine).Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m.(*machine)
}

func nothing(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in %s: %v, %v", dir, left, err)
	}
}

// TestSnapshotFaults: a monitor that dies or is silent while it writes, and one that loads and does not run.
func TestSnapshotFaults(t *testing.T) {
	dir := t.TempDir()
	m := paused(t, "killed-at-create")
	if err := m.Snapshot(t.Context(), dir); errdefs.ClassOf(err) != errdefs.Engine {
		t.Errorf("killed: %v of class %s", err, errdefs.ClassOf(err))
	}
	nothing(t, dir)
	if exit, err := m.Wait(t.Context()); exit.Kind != engine.ExitKilled || err != nil {
		t.Errorf("killed: %+v, %v", exit, err)
	}

	m = paused(t, "hangs-at-create")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := m.Snapshot(ctx, dir); errdefs.ClassOf(err) != errdefs.Timeout {
		t.Errorf("silent: %v of class %s", err, errdefs.ClassOf(err))
	}
	nothing(t, dir)
	if err := m.Stop(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if err := paused(t, "").Snapshot(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for fault, want := range map[string]errdefs.Class{"killed-at-version": errdefs.Engine, "killed-at-load": errdefs.Engine, "hangs-at-load": errdefs.Timeout, "": ""} {
		s := fakeSpec(t)
		e := fake(t, "", fault)
		if _, err := e.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		go killAt(ctx, s)
		got, err := e.Restore(ctx, s, dir)
		cancel()
		if errdefs.ClassOf(err) != want {
			t.Errorf("%s: %v of class %s, want %s", fault, err, errdefs.ClassOf(err), want)
		}
		if got != nil {
			_ = got.Stop(t.Context(), 0)
		}
		if _, err := os.Lstat(filepath.Join(filepath.Dir(s.AgentPath), rundir.Name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: its directory is left (%v)", fault, err)
		}
	}
	got, err := fake(t, "", "no-resume").Restore(t.Context(), fakeSpec(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = got.Stop(context.WithoutCancel(t.Context()), 0) })
	if err := got.(engine.Pauser).Resume(t.Context()); err == nil || !strings.Contains(err.Error(), "VcpuResume") {
		t.Errorf("a machine that does not run: %v", err)
	}
}

// TestSnapshotVersions: a release whose guests do not answer after a restore is refused by its name, as is a snapshot of another
// release than the one that is there.
func TestSnapshotVersions(t *testing.T) {
	dir := t.TempDir()
	if err := paused(t, "").Snapshot(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{
		"1.11.0": "1.12.0 or newer is needed",
		"1.16.0": "is Firecracker 1.16.0: no guest of it answers after a restore",
		"1.16.1": "another engine's version: 1.12.1, and this is 1.16.1",
	} {
		if m, err := fake(t, version, "").Restore(t.Context(), fakeSpec(t), dir); m != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %q", version, m, err, want)
		}
	}
}

// TestSnapshotAsAnother: a monitor with a user id of its own writes snapshots, and another one with another id goes on from them.
func TestSnapshotAsAnother(t *testing.T) {
	if !launch.IsRoot() {
		t.Skip("only root gives monitors a user id")
	}
	if _, err := kvm.Groups(kvm.Device); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	other := func(uid uint32) func(*engine.Spec) {
		return func(s *engine.Spec) {
			s.UID, s.MaxFileBytes = uid, 64<<20 // less than the memory
			for _, f := range []*os.File{s.Kernel, s.Initrd, s.Drives[0].File} {
				if err := f.Chmod(0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := paused(t, "", other(1_900_065_534)).Snapshot(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	s := fakeSpec(t)
	other(1_900_065_535)(&s)
	m, err := fake(t, "", "").Restore(t.Context(), s, dir)
	if err != nil {
		t.Fatal(err)
	}
	_ = m.Stop(t.Context(), 0)
	st, err := os.Stat(filepath.Join(dir, "memory"))
	if err != nil || st.Size() != 128<<20 {
		t.Errorf("the memory: %v, %v", st, err)
	}
}
