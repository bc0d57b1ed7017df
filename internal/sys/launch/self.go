package launch

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Confine takes from this very process what the plan does not leave it, for a program of ours that needs no other one. The
// plan has no Program, Args, Env and Files; Parent is who must be alive, or 0. Every thread is meant, also those to come.
func Confine(p Plan) (Report, error) {
	c := &confiner{plan: p}
	c.landlock()
	if err := c.limits(); err != nil {
		return c.report, err
	}
	if err := c.user(); err != nil {
		return c.report, err
	}
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return c.report, fmt.Errorf("no new privileges: %w", errno)
	}
	c.have("no-new-privs")
	// A change of uid has cleared it.
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0, 0); errno != 0 {
		return c.report, fmt.Errorf("parent-death signal: %w", errno)
	}
	if p.Parent != 0 && os.Getppid() != p.Parent {
		return c.report, fmt.Errorf("the parent %d is gone", p.Parent)
	}
	c.have("dies with its parent")
	return c.report, nil
}
