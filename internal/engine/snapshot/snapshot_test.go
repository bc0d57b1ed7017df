package snapshot

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
)

func file(t *testing.T, content string, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func written(t *testing.T) (dir string, spec engine.Spec) {
	t.Helper()
	dir = t.TempDir()
	spec = engine.Spec{CPUs: 1, MemoryMiB: 64, Accel: "kvm", Drives: []engine.Drive{{ID: "disk", File: file(t, "", 4096)}}}
	r, err := Of(&spec, engine.Handle{Engine: "e", EngineVer: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), dir, r, file(t, "state", 5), file(t, "memory", 1<<20)); err != nil {
		t.Fatal(err)
	}
	return dir, spec
}

// TestRoundTrip: what was written is found again, and a damaged memory is told by who asks for it.
func TestRoundTrip(t *testing.T) {
	dir, spec := written(t)
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Fits(&spec, "e", "1"); err != nil {
		t.Error(err)
	}
	if err := s.Verify(); err != nil {
		t.Error(err)
	}
	s.Close()
	if err := os.Chmod(filepath.Join(dir, memoryName), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, memoryName), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{1}, 1<<19); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if s, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Verify(); errdefs.ClassOf(err) != errdefs.Engine || !strings.Contains(err.Error(), "memory has the sum") {
		t.Errorf("a damaged memory: %v", err)
	}
}

// TestFits: a machine or a monitor that is another one is refused, with what differs.
func TestFits(t *testing.T) {
	dir, spec := written(t)
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Fits(&spec, "e", "2"); errdefs.ClassOf(err) != errdefs.Engine || !strings.Contains(err.Error(), "another engine's version: 1, and this is 2") {
		t.Errorf("another version: %v", err)
	}
	spec.Drives[0].File = file(t, "", 8192)
	if err := s.Fits(&spec, "e", "1"); errdefs.ClassOf(err) != errdefs.Invalid || !strings.Contains(err.Error(), "has 4096 bytes, not 8192") {
		t.Errorf("another disk: %v", err)
	}
}

// TestWriteFails: a snapshot that does not come about leaves nothing.
func TestWriteFails(t *testing.T) {
	dir, _ := written(t)
	r := Record{Version: recordVersion}
	if err := Write(t.Context(), dir, r, file(t, "x", 1), file(t, "", 1)); errdefs.ClassOf(err) != errdefs.AlreadyExists {
		t.Errorf("over another: %v", err)
	}
	if _, err := Open(dir); err != nil {
		t.Errorf("the other one: %v", err)
	}
	dir = t.TempDir()
	if err := Write(t.Context(), dir, r, file(t, "", 0), file(t, "", 1)); errdefs.ClassOf(err) != errdefs.Engine {
		t.Errorf("no state: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Write(ctx, dir, r, file(t, "x", 1), file(t, "x", 1)); err == nil {
		t.Error("written although its call had ended")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestProcessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cpuinfo")
	if err := os.WriteFile(path, []byte("processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: EPYC\nstepping\t: 2\n\nprocessor\t: 1\nmodel\t: 9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := processor(path); got != "AuthenticAMD 25/1/2 (EPYC)" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
