package lab

import (
	"strings"
	"testing"
)

// engines are those that the lab has.
func engines() []string { return []string{"firecracker", "qemu"} }

// crashes are the program's tests that say something about an engine: its monitor is killed, its supervisor, at each step of a VM's
// life; its walls; a guest's disk that is full and a host's that is; a program that is missing. Of QEMU the VM lane has tried most
// already, emulated.
func crashes(engine string) string {
	if engine == "qemu" {
		return "^TestVM(CoreConfinement|LongKilledSteps)$"
	}
	return "^TestVM(CoreLife|Pause|DiskFull|CoreConfinement|LongKilledSteps|LongHostFaults|RootLongFullHome)$"
}

// calm are parts of them that no engine has anything to do with, and that take long below an emulated processor.
const calm = "^TestVMLongHostFaults$/^(broken_records|a_damaged_image)$"

// TestLabCrashes kills everything of a VM at each step.
func TestLabCrashes(t *testing.T) {
	beyondCore(t)
	for _, engine := range engines() {
		t.Run(engine, func(t *testing.T) {
			l := open(t)
			j := l.users(t, engine, crashes(engine))
			j.Args = append(j.Args, "-test.skip", calm)
			j.Env = append(j.Env, "SMOLVM_FAULT_BIN=/work/bin/smolvm-faults")
			j.add(t, "bin/smolvm-faults", l.build(t, "smolvm-faults", "build", "-tags", "faults", "github.com/smolvm/smolvm/cmd/smolvm"))
			l.pass(t, j, "--- PASS: TestVM")
		})
	}
}

// users is a job of tests that use the program as people do, on an engine.
func (l lab) users(t *testing.T, engine, pattern string) job {
	t.Helper()
	j := l.debian(t, "test/vm", pattern, "SMOLVM_ENGINE="+engine)
	j.addConfig(t, slow)
	return j
}

// pass runs a job that is to succeed, and to say so.
func (l lab) pass(t *testing.T, j job, says string) {
	t.Helper()
	if status, out := l.run(t, j); status != 0 || !strings.Contains(out, says) {
		t.Errorf("it ends with status %d", status)
	}
}
