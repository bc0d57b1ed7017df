package lab

import (
	"strings"
	"testing"
)

// TestLabQEMU: QEMU with KVM keeps the contract, too.
func TestLabQEMU(t *testing.T) {
	beyondCore(t)
	l := open(t)
	j := l.tests(t, "internal/engine/qemu", "^TestVM")
	j.Root = true
	if status, out := l.run(t, j); status != 0 || !strings.Contains(out, "--- PASS: TestVM") {
		t.Errorf("the tests end with status %d", status)
	}
}

// proven has a job tell what the program knows of each accelerator.
const proven = `
smolvm engine ls --json | python3 -c '
import json, sys
for e in json.load(sys.stdin):
    for a in e["accelerators"]:
        print("proven:", e["name"], a["name"], a["state"])
'
smolvm doctor | grep "^ok *accelerator kvm with"
`

// TestLabQEMURun runs a VM as users do, with QEMU and KVM: from then on the accelerator counts as proven.
func TestLabQEMURun(t *testing.T) {
	l := open(t)
	j := l.debian(t, "internal/sys/tail", "^$")
	j.Args = []string{"bash", "-euc", `
		smolvm run --engine qemu --require-accel --memory 256m --boot-timeout 180s -v -- sh -c 'cat /sys/devices/system/clocksource/*/current_clocksource; uname -r'
	` + proven}
	status, out := l.run(t, j)
	for _, want := range []string{"kvm-clock\n", "cloud-amd64\n", "proven: qemu kvm usable\n", "proven: firecracker kvm untried\n", "accelerator kvm with qemu         proven: "} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not print %q", want)
		}
	}
	if status != 0 {
		t.Errorf("smolvm run ends with status %d", status)
	}
}

// TestLabQEMUAsUser: no root is needed.
func TestLabQEMUAsUser(t *testing.T) {
	beyondCore(t)
	l := open(t)
	j := l.tests(t, "internal/engine/qemu", "^TestVMCoreConfined$")
	j.Root, j.UID = true, 1000
	if status, out := l.run(t, j); status != 0 || !strings.Contains(out, "--- PASS: TestVMCoreConfined") {
		t.Errorf("the tests end with status %d", status)
	}
}
