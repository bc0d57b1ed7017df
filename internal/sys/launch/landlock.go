package launch

import (
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// landlock leaves nothing to be reached by path but what the plan names. What the kernel is too old to forbid stays
// possible; the ABI that is in force is told.
func (c *confiner) landlock() {
	abi, err := llsys.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		c.miss("landlock: the kernel has none (%v)", err)
		return
	}
	p := c.plan
	rules := []landlock.Rule{landlock.ROFiles(p.Program)}
	for _, d := range present(p.ReadDirs) {
		rules = append(rules, landlock.RODirs(d))
	}
	for _, f := range present(p.ReadFiles) {
		rules = append(rules, landlock.ROFiles(f))
	}
	for _, f := range present(p.WriteFiles) {
		rules = append(rules, landlock.RWFiles(f))
	}
	for _, d := range present(p.Devices) {
		rules = append(rules, landlock.RWFiles(d).WithIoctlDev())
	}
	if err := landlock.V9.BestEffort().Restrict(rules...); err != nil {
		c.miss("landlock: %v", err)
		return
	}
	c.have("landlock %d", min(abi, 9))
}

// present leaves out what is not there: distributions differ.
func present(paths []string) []string {
	var out []string
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			out = append(out, p)
		}
	}
	return out
}
