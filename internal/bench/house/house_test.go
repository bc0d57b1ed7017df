package house

import (
	"os"
	"path/filepath"
	"testing"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestLinkTree: a home of the benchmark's own has the same files, and removing it leaves the others alone.
func TestLinkTree(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	write(t, filepath.Join(from, "a", "b"), "text")
	if err := os.Symlink("a/b", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if err := linkTree(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a/b", "link"} {
		if b, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(b) != "text" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(from, "a", "b")); err != nil {
		t.Error(err)
	}
	write(t, filepath.Join(from, "c"), "copied")
	if err := copyFile(filepath.Join(from, "c"), filepath.Join(from, "d")); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(from, "d")); err != nil || string(b) != "copied" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestUse: what a home still has is counted, images are not.
func TestUse(t *testing.T) {
	h := &House{Dir: t.TempDir()}
	before, err := h.Use()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(h.Dir, "images", "x"), "image")
	if again, err := h.Use(); err != nil || again.Disk != before.Disk {
		t.Errorf("an image counts: %+v, %+v, %v", before, again, err)
	}
	write(t, filepath.Join(h.Dir, "vms", "x", "disk"), string(make([]byte, 100<<10)))
	write(t, filepath.Join(h.Dir, "trash", "y", "z"), "")
	held, err := os.Open(filepath.Join(h.Dir, "vms", "x", "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	after, err := h.Use()
	if err != nil {
		t.Fatal(err)
	}
	if after.VMs != 2 || after.Procs != 0 || after.FDs != before.FDs+1 || after.Disk < before.Disk+100<<10 {
		t.Errorf("%+v, then %+v", before, after)
	}
}
