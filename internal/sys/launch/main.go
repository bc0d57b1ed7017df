package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Main is the launcher. It returns only when it failed.
func Main() int {
	// The parent-death signal and the exec belong to one thread.
	runtime.LockOSThread()
	out := os.NewFile(fdReport, "report")
	p, err := readPlan()
	if err != nil {
		return fail(out, err)
	}
	c := &confiner{plan: p}
	// Below a home that is its owner's alone, who the program becomes cannot find it.
	held, err := unix.Open(p.Program, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(out, fmt.Errorf("%s cannot be run: %w", p.Program, err))
	}
	if err := c.confine(); err != nil {
		return fail(out, err)
	}
	// Marked, not closed: the report is written before the exec and its end is the exec.
	if err := unix.CloseRange(fdPlan, fdReport, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		unix.CloseOnExec(fdPlan)
		unix.CloseOnExec(fdReport)
	}
	unix.CloseOnExec(p.ParentFD)
	line, err := json.Marshal(c.report)
	if err != nil {
		return fail(out, err)
	}
	return becomeProgram(out, line, p, held)
}

// becomeProgram reports and execs. The report is withheld until the program was seen to be one that starts, as far as
// that can be told: after the exec nobody is there to take it back.
func becomeProgram(out *os.File, line []byte, p Plan, held int) int {
	path := p.Program
	err := unix.Access(path, unix.X_OK)
	if errors.Is(err, unix.EACCES) {
		path = fmt.Sprintf("/proc/self/fd/%d", held)
		err = unix.Access(path, unix.X_OK)
	}
	if err != nil {
		return fail(out, fmt.Errorf("%s cannot be run once confined: %w", p.Program, err))
	}
	if _, err := out.Write(line); err != nil {
		return 1
	}
	err = unix.Exec(path, append([]string{p.Program}, p.Args...), p.Env)
	fmt.Fprintf(os.Stderr, "launch %s: %v\n", p.Program, err)
	return 1
}

func fail(out *os.File, err error) int {
	line, _ := json.Marshal(Report{Error: err.Error()})
	_, _ = out.Write(line)
	return 1
}

func readPlan() (Plan, error) {
	var p Plan
	f := os.NewFile(fdPlan, "plan")
	if err := json.NewDecoder(io.LimitReader(f, 1<<20)).Decode(&p); err != nil {
		return p, fmt.Errorf("the launcher's plan: %w", err)
	}
	return p, nil
}

// MaxThreads is what a user of its own may run.
const MaxThreads = 1024

// confiner takes one measure after another and keeps the account of them.
type confiner struct {
	plan   Plan
	report Report
}

func (c *confiner) have(format string, args ...any) {
	c.report.InForce = append(c.report.InForce, fmt.Sprintf(format, args...))
}

func (c *confiner) miss(format string, args ...any) {
	c.report.Missing = append(c.report.Missing, fmt.Sprintf(format, args...))
}

// confine goes from what needs the most to what needs the least: namespaces were made with the process, Landlock must
// still reach the paths, and the uid goes last but for what the change of it undoes.
func (c *confiner) confine() error {
	c.namespaces()
	if err := c.makeTAP(); err != nil {
		return err
	}
	if err := c.root(); err != nil {
		return err
	}
	c.landlock()
	if err := c.limits(); err != nil {
		return err
	}
	dropBounds()
	if err := c.user(); err != nil {
		return err
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	c.have("no capabilities")
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	c.have("no-new-privs")
	// A change of uid has cleared it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("parent-death signal: %w", err)
	}
	// Across PID namespaces a parent has no number.
	gone, err := unix.Poll([]unix.PollFd{{Fd: int32(c.plan.ParentFD), Events: unix.POLLIN}}, 0) //nolint:gosec // a descriptor is small
	if err != nil {
		return fmt.Errorf("whether the parent lives: %w", err)
	}
	if gone != 0 {
		return errors.New("the parent is gone")
	}
	c.have("dies with its parent")
	return nil
}

// What is told of a user id that is its owner's.
const (
	missingUID = "uid: only root can give it one of its own"
	sharedUID  = "uid %d with nothing of its owner's in reach"
)

func (c *confiner) user() error {
	if c.plan.UID == 0 {
		switch {
		case os.Geteuid() == 0:
			c.miss("uid: it runs as root")
		case slices.Contains(c.report.InForce, "root"):
			// Ours, in a user namespace, where no file, no process and no socket is that this uid could have to do with.
			c.have(sharedUID, os.Geteuid())
		default:
			c.miss(missingUID+"; it runs as %d", os.Geteuid())
		}
		return nil
	}
	id := int(c.plan.UID)
	if err := syscall.Setgroups(c.plan.Groups); err != nil {
		return fmt.Errorf("drop the groups: %w", err)
	}
	if err := syscall.Setresgid(id, id, id); err != nil {
		return fmt.Errorf("become group %d: %w", id, err)
	}
	if err := syscall.Setresuid(id, id, id); err != nil {
		return fmt.Errorf("become user %d: %w", id, err)
	}
	c.have("uid %d", id)
	if len(c.plan.Groups) > 0 {
		c.have("groups %s", strings.Trim(fmt.Sprint(c.plan.Groups), "[]"))
	}
	return nil
}

func (c *confiner) limits() error {
	type limit struct {
		name     string
		resource int
		value    uint64
	}
	limits := []limit{
		{"nofile", unix.RLIMIT_NOFILE, c.plan.MaxFiles},
		{"core", unix.RLIMIT_CORE, 0},
	}
	if c.plan.UID != 0 { // what counts is the user's, who has this program and what belongs to it
		limits = append(limits, limit{"nproc", unix.RLIMIT_NPROC, MaxThreads})
	}
	if n := c.plan.MaxFileBytes; n > 0 {
		limits = append(limits, limit{"fsize", unix.RLIMIT_FSIZE, uint64(n)})
		// Over the limit a write shall fail (an I/O error in the guest), not kill.
		signal.Ignore(syscall.SIGXFSZ)
	}
	if n := c.plan.MaxMemory; n > 0 {
		limits = append(limits, limit{"data", unix.RLIMIT_DATA, uint64(n)})
	}
	for _, l := range limits {
		var now syscall.Rlimit
		if err := syscall.Getrlimit(l.resource, &now); err != nil {
			return fmt.Errorf("limit %s: %w", l.name, err)
		}
		l.value = min(l.value, now.Max)
		if err := syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: l.value, Max: l.value}); err != nil {
			return fmt.Errorf("limit %s to %d: %w", l.name, l.value, err)
		}
		c.have("rlimit %s %d", l.name, l.value)
	}
	return nil
}
