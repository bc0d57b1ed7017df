package peer

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/need"
)

// TestPasta: pasta gives its namespace a network, and nothing of it is left.
func TestPasta(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the peer joins pasta's namespace as root only")
	}
	need.Tool(t, "pasta", "apt-get install passt")
	p, err := Pasta(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	p.Close()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the end took %v", took)
	}
	out, _ := exec.CommandContext(t.Context(), "pgrep", "-P", strconv.Itoa(os.Getpid()), "-a").Output()
	if strings.Contains(string(out), "pasta") || strings.Contains(string(out), "sleep") {
		t.Errorf("left: %s", out)
	}
}
