package vm

import (
	"encoding/json"
	"testing"

	"github.com/smolvm/smolvm/api"
)

// TestVMBench: every suite runs and gives its figures. Whether they meet their goals is no test's business: machines are
// shared, and one pair says little.
func TestVMBench(t *testing.T) {
	measured(t, map[string][]string{
		"boot":     {"create to first answer / bare engine to hello"},
		"exec":     {"ping / raw echo", "exec overhead / ping", "exec during a copy / idle"},
		"copy":     {"copy in / raw channel", "copy out / raw channel", "agent's peak resident memory"},
		"image":    {"tar to a published image / mke2fs -d"},
		"idle":     {"supervisor, Private_Dirty"},
		"attach":   {"attach replay / copy out"},
		"ls":       {"ls of 1,000 VMs / reading their records"},
		"parallel": {"VMs that failed", "growth of the disk", "VMs and trash left", "processes left"},
	})
}

// TestVMLongBench: so does the one that takes minutes.
func TestVMLongBench(t *testing.T) {
	measured(t, map[string][]string{
		"cycles": {"cycle in a worn home / in a fresh one", "growth of the disk", "VMs and trash left", "processes left"},
	})
}

// measured runs suites, each of which has figures.
func measured(t *testing.T, suites map[string][]string) {
	c := program(t)
	for suite, want := range suites {
		t.Run(suite, func(t *testing.T) {
			r := c.run(t, "bench", suite, "--runs", "1", "--json")
			if r.code != 0 && r.code != 1 || r.stderr != "" {
				t.Fatalf("exit code %d: %s", r.code, r.stderr)
			}
			var s api.Suite
			if err := json.Unmarshal([]byte(r.stdout), &s); err != nil || s.Suite != suite {
				t.Fatalf("suite %q, %v: %s", s.Suite, err, r.stdout)
			}
			t.Logf("%+v", s)
			missed := false
			figures := map[string]api.Figure{}
			for _, f := range s.Figures {
				figures[f.Name] = f
				missed = missed || !f.OK
			}
			for _, name := range want {
				f := figures[name]
				if f.Goal == "" || len(f.Samples) == 0 || f.Value <= 0 && (f.Unit == "ratio" || f.Unit == "MiB") {
					t.Errorf("no figure %q with a goal: %+v", name, f)
				}
				// Whatever the machine is: none fails, and nothing is left.
				if f.Unit != "ratio" && f.Unit != "MiB" && !f.OK {
					t.Errorf("%+v", f)
				}
			}
			if missed != (r.code == 1) {
				t.Errorf("exit code %d, a goal missed: %v", r.code, missed)
			}
		})
	}
}
