package peer

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/need"
	"github.com/smolvm/smolvm/internal/network/control"
)

// pastas are the processes whose arguments are those of the peer's pasta: it itself, and its child until that became another
// program.
func pastas(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil && (bytes.HasPrefix(b, []byte("pasta\x00--foreground")) || bytes.Equal(b, []byte("sleep\x003600\x00"))) { //nolint:gosec // the kernel's
			found[filepath.Dir(file)] = true
		}
	}
	return found
}

// TestPasta: pasta gives its namespace a network, and nothing of it is left.
func TestPasta(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the peer joins pasta's namespace as root only")
	}
	need.Tool(t, "pasta", "apt-get install passt")
	before := pastas(t)
	for range 5 {
		p, err := Pasta(t.Context(), control.MTU)
		if err != nil {
			t.Fatal(err)
		}
		if len(pastas(t)) == len(before) {
			t.Fatal("no pasta is to be seen")
		}
		begun := time.Now()
		p.Close()
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("the end took %v", took)
		}
	}
	for process := range pastas(t) {
		if !before[process] {
			t.Errorf("%s is left", process)
		}
	}
}
