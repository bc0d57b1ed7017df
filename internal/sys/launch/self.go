package launch

import (
	"fmt"
	"os"
	"slices"
	"strings"
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

// scoped is the version of Landlock from which it keeps signals from other processes.
const scoped = 6

// Enclosed notes that a filter of system calls leaves a program nothing else that its user id could do: no program to start, no
// socket of the host's, no other process. Together with Landlock an id of its own is not missed then.
func (r *Report) Enclosed() {
	i := slices.IndexFunc(r.Missing, func(m string) bool { return strings.HasPrefix(m, missingUID) })
	if i < 0 || r.abi < scoped {
		return
	}
	r.Missing = slices.Delete(r.Missing, i, i+1)
	r.InForce = append(r.InForce, fmt.Sprintf(sharedUID, os.Geteuid()))
}
