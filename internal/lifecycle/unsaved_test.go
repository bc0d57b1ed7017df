package lifecycle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/store"
)

// TestUnsaved: what became of a VM is told where it cannot be written down, and the VM can be removed.
func TestUnsaved(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs a file system of its own, which only root can mount")
	}
	m := rig(t, "")
	create(t, m, "first", CreateOptions{}) // so that the image is there
	vms := filepath.Join(m.store.Home(), "vms")
	if err := m.Remove(t.Context(), "first", true); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", vms, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(vms, 0) })
	create(t, m, "full", CreateOptions{})
	edit(t, m, "full", func(s *store.State) { s.State = api.StateRunning })
	fill := filepath.Join(vms, ".fill")
	if err := os.WriteFile(fill, make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("the file system is not full")
	}
	box := state(t, m, "full", api.StateError, "supervisor is gone; that cannot be written down")
	if !strings.Contains(box.Reason, "no space") {
		t.Errorf("reason %q", box.Reason)
	}
	boxes, err := m.List(t.Context(), false)
	if err != nil || len(boxes) != 1 || boxes[0].State != api.StateError {
		t.Errorf("List = %+v, %v", boxes, err)
	}
	if _, err := m.Start(t.Context(), "full", nil); !errdefs.Is(err, errdefs.Exhausted) || errdefs.RemedyOf(err) == "" {
		t.Errorf("Start: %v", err)
	}
	if err := os.Remove(fill); err != nil {
		t.Error(err)
	}
}
