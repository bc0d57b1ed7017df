package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// slow is the configuration of VMs below an emulated processor. With an accelerator or not at all: none is emulated twice.
const slow = "vm:\n  boot_timeout: 240s\n  memory: 256m\n  require_accel: true\n"

// addConfig has all VMs of a job made so.
func (j *job) addConfig(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	j.add(t, "config.yaml", path)
	j.Env = append(j.Env, "SMOLVM_CONFIG=/work/config.yaml")
}

// egress tries every way out of a VM.
func egress(t *testing.T, engine string) {
	t.Helper()
	beyondCore(t)
	l := open(t)
	j := l.debian(t, "test/egress", "^TestVMCoreEgress$", "SMOLVM_ENGINE="+engine)
	j.addConfig(t, slow)
	j.Args = append([]string{"bash", "-euc", `"$0" "$@"` + proven}, j.Args...)
	status, out := l.run(t, j)
	if status != 0 || !strings.Contains(out, "--- PASS: TestVMCoreEgress") || !strings.Contains(out, "proven: "+engine+" kvm usable\n") {
		t.Errorf("the suite ends with status %d", status)
	}
}

// TestLabEgressFirecracker: behind Firecracker's TAP there is no other way out than behind QEMU's wire.
func TestLabEgressFirecracker(t *testing.T) { egress(t, "firecracker") }

// TestLabEgressQEMU: nor is there one with KVM.
func TestLabEgressQEMU(t *testing.T) { egress(t, "qemu") }
