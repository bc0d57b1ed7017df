package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLabCPUShare: under control groups of version 2, too, a VM gets no more of a processor than its share.
func TestLabCPUShare(t *testing.T) {
	l := open(t)
	j := l.program(t, "test/vm", "^TestVMRootCPUShare$", "SMOLVM_BIN=/work/bin/smolvm", "SMOLVM_ENGINE=firecracker", "SMOLVM_CONFIG=/work/config.yaml")
	config := filepath.Join(t.TempDir(), "config.yaml")
	must(t, os.WriteFile(config, []byte("vm:\n  boot_timeout: 180s\n  memory: 256m\n"), 0o600))
	j.add(t, "config.yaml", config)
	status, out := l.run(t, j)
	if status != 0 || !strings.Contains(out, "--- PASS: TestVMRootCPUShare") {
		t.Errorf("it ends with status %d", status)
	}
}
