package lab

import (
	"cmp"
	"os"
	"strings"
	"testing"
	"time"
)

// runsVar is how many pairs `smolvm bench engine` measures; the lab proves that it works, and figures of it need nine.
const runsVar = "SMOLVM_LAB_RUNS"

// TestLabBench measures the engine against its bare monitor. Whether a goal is met below an emulated processor is told, and no failure.
func TestLabBench(t *testing.T) {
	beyondCore(t)
	l := open(t)
	j := l.program(t, "internal/sys/tail", "^$")
	j.Args = []string{"/work/bin/smolvm", "bench", "engine", "--runs", cmp.Or(os.Getenv(runsVar), "1")}
	j.limit = 90 * time.Minute // nine pairs of each take an hour
	status, out := l.run(t, j)
	for _, want := range []string{"create to first answer / bare Firecracker", "load and resume to first answer / bare Firecracker", "round trip / HTTP/2 echo"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not tell of %q", want)
		}
	}
	if status > 1 {
		t.Errorf("it ends with status %d", status)
	}
}
