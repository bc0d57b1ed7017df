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
	var rules []landlock.Rule
	if p.Program != "" {
		rules = append(rules, landlock.ROFiles(p.Program))
	}
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
	if p.WorkDir != "" { // by where we are: the path may be another one's descriptor
		rules = append(rules, landlock.PathAccess(llsys.AccessFSMakeSock, "."))
	}
	err = restrict(p, rules)
	if err != nil {
		c.miss("landlock: %v", err)
		return
	}
	c.report.abi = min(abi, 9)
	c.have("landlock %d", c.report.abi)
}

// restrict leaves TCP alone where the plan needs the network.
func restrict(p Plan, rules []landlock.Rule) error {
	config := landlock.V9.BestEffort()
	if !p.Network {
		return config.Restrict(rules...)
	}
	if err := config.RestrictPaths(rules...); err != nil {
		return err
	}
	return config.RestrictScoped()
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
