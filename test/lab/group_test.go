package lab

import "testing"

// TestLabGroup: under control groups of version 2 a VM gets no more of a processor than its share, and each monitor's memory and
// processes are bounded.
func TestLabGroup(t *testing.T) {
	l := open(t)
	t.Run("limits", func(t *testing.T) {
		j := l.tests(t, "internal/sys/cgroup", "^Test")
		j.Root = true
		l.pass(t, j, "--- PASS: TestLimits")
	})
	t.Run("qemu", func(t *testing.T) {
		l.pass(t, l.users(t, "qemu", "^TestVMRootGroup$"), "--- PASS: TestVMRootGroup")
	})
	t.Run("firecracker", func(t *testing.T) {
		j := l.program(t, "test/vm", "^TestVMRoot(CPUShare|Group)$", "SMOLVM_BIN=/work/bin/smolvm", "SMOLVM_ENGINE=firecracker")
		j.addConfig(t, slow)
		l.pass(t, j, "--- PASS: TestVMRootCPUShare")
	})
}
