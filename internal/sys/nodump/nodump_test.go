package nodump

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestForbid: the limit is there, and a child has it.
func TestForbid(t *testing.T) {
	if os.Getenv("NODUMP_TEST") == "" {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestForbid$", "-test.v")
		cmd.Env = append(os.Environ(), "NODUMP_TEST=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	if err := Forbid(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "cat", "/proc/self/limits").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if f := strings.Fields(line); len(f) > 5 && f[1] == "core" {
			if f[4] != "1" || f[5] != "1" {
				t.Error(line)
			}
			return
		}
	}
	t.Errorf("no limit in %s", out)
}
