package lab

import (
	"strings"
	"testing"
)

// TestLabCPUShare: under control groups of version 2, too, a VM gets no more of a processor than its share.
func TestLabCPUShare(t *testing.T) {
	l := open(t)
	j := l.program(t, "test/vm", "^TestVMRootCPUShare$", "SMOLVM_BIN=/work/bin/smolvm", "SMOLVM_ENGINE=firecracker")
	j.addConfig(t, slow)
	status, out := l.run(t, j)
	if status != 0 || !strings.Contains(out, "--- PASS: TestVMRootCPUShare") {
		t.Errorf("it ends with status %d", status)
	}
}
