package lab

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestLabCard has the gateway and a guest leave segments to each other by the packet socket at Firecracker's TAP.
func TestLabCard(t *testing.T) {
	beyondCore(t)
	l := open(t)
	j := l.program(t, "test/card", "^TestLab", "SMOLVM_AGENT=/work/agent")
	j.add(t, "agent", filepath.Join("..", "..", "cmd", "smolvm", "agent", "smolvm-guest"))
	if status, out := l.run(t, j); status != 0 || !strings.Contains(out, "--- PASS: TestLabSegments") || !strings.Contains(out, "--- PASS: TestLabRates") {
		t.Errorf("the tests end with status %d", status)
	}
}
