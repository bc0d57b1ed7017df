package lab

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestLabFork makes two machines of one snapshot, with the real agent and the default image.
func TestLabFork(t *testing.T) {
	beyondCore(t)
	l := open(t)
	j := l.program(t, "test/fork", "^TestLab", "SMOLVM_AGENT=/work/agent")
	j.add(t, "agent", filepath.Join("..", "..", "cmd", "smolvm", "agent", "smolvm-guest"))
	if status, out := l.run(t, j); status != 0 || !strings.Contains(out, "--- PASS: TestLabFork") {
		t.Errorf("the tests end with status %d", status)
	}
}
