package firecracker

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
)

// TestOwn: a file that is only read may be anybody's, and is left as it is; one that the monitor may not read is refused in words.
func TestOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rootfs")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path) //nolint:gosec // ours
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	s := &starting{spec: &engine.Spec{UID: 1_900_000_001}}
	if err := s.own(f, true); !errdefs.Is(err, errdefs.Denied) || errdefs.RemedyOf(err) != "chmod o+r "+path {
		t.Errorf("%v (%s)", err, errdefs.RemedyOf(err))
	}
	if err := f.Chmod(0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.own(f, true); err != nil {
		t.Error(err)
	}
	if st, err := f.Stat(); err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", st, err)
	}
	if err := (&starting{spec: &engine.Spec{}}).own(f, false); err != nil {
		t.Error(err)
	}
}
