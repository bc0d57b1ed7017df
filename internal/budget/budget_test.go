package budget

import (
	"strings"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
)

func TestFromEnv(t *testing.T) {
	for _, c := range []struct {
		memory, vms string
		want        Budget
		err         string
	}{
		{"", "", Budget{}, ""},
		{"8g", "20", Budget{8192, 20}, ""},
		{"512", "", Budget{MemoryMiB: 512}, ""},
		{"much", "", Budget{}, memoryVar},
		{"0", "", Budget{}, memoryVar},
		{"1k", "", Budget{}, memoryVar},
		{"", "-1", Budget{}, vmsVar},
		{"", "some", Budget{}, vmsVar},
	} {
		got, err := FromEnv(func(name string) string { return map[string]string{memoryVar: c.memory, vmsVar: c.vms}[name] })
		if c.err != "" {
			if errdefs.ClassOf(err) != errdefs.Invalid || !strings.Contains(err.Error(), c.err) || errdefs.RemedyOf(err) == "" {
				t.Errorf("%q %q: %v", c.memory, c.vms, err)
			}
			continue
		}
		if got != c.want || err != nil {
			t.Errorf("%q %q: %+v, %v", c.memory, c.vms, got, err)
		}
	}
}

func TestAdmit(t *testing.T) {
	two := []VM{{"a", 1024}, {"b", 512}}
	for _, c := range []struct {
		name    string
		budget  Budget
		vm      VM
		running []VM
		err     string
	}{
		{"room", Budget{MemoryMiB: 4096}, VM{"c", 1024}, two, ""},
		{"just", Budget{MemoryMiB: 2560 + 3*overheadMiB}, VM{"c", 1024}, two, ""},
		{"just not", Budget{MemoryMiB: 2560 + 3*overheadMiB - 1}, VM{"c", 1024}, two, "2 VMs have 1792 MiB"},
		{"one too many", Budget{MemoryMiB: 1 << 20, VMs: 2}, VM{"c", 128}, two, "2 run, and SMOLVM_MAX_VMS is 2"},
		{"the host's", Budget{}, VM{"c", 1 << 29}, nil, "the budget is"},
		{"the host's, small", Budget{}, VM{"c", 128}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.budget.Admit(c.vm, c.running)
			if c.err == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if errdefs.ClassOf(err) != errdefs.Exhausted || !strings.Contains(err.Error(), c.err) || errdefs.RemedyOf(err) == "" {
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
}
