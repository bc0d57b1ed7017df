// Package monitor is what the drivers of monitors that run as a process share: finding the program, and starting it confined.
//
// Layer: engine, below the drivers.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/sys/child"
	"github.com/smolvm/smolvm/internal/sys/launch"
	"github.com/smolvm/smolvm/internal/sys/pidfd"
	"github.com/smolvm/smolvm/internal/sys/tail"
)

// Process is a monitor that runs.
type Process struct {
	Child  *child.Child
	Stderr *tail.Buffer
	Record engine.Handle
}

// Said adds to err what the monitor complained about.
func (p Process) Said(err error) error {
	if lines := p.Stderr.Lines(5); lines != "" {
		return fmt.Errorf("%w: %s", err, lines)
	}
	return err
}

// killedWait is how long a monitor that no longer answers has to be gone.
const killedWait = 100 * time.Millisecond

// Blame adds engine.ErrKilled to what failed, where the monitor was killed meanwhile. It comes before the caller's own Kill.
func (p Process) Blame(err error) error {
	select {
	case <-p.Child.Done():
	case <-time.After(killedWait):
		return err
	}
	if ws, ok := p.Child.State().Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == unix.SIGKILL {
		return fmt.Errorf("%w: %w", engine.ErrKilled, err)
	}
	return err
}

// Launch starts a monitor and returns once the launcher has become it. What it prints goes to stdout, or to Stderr too where that
// is nil. h is its record, but for what only its start shows.
func Launch(ctx context.Context, plan launch.Plan, stdout io.Writer, h engine.Handle) (Process, error) {
	p, report, err := try(ctx, plan, stdout)
	for err != nil {
		// Where namespaces or its control group may not be had the report says so, and the VM shows it.
		less, ok := plan.Lesser(err)
		if !ok {
			return Process{}, err
		}
		plan = less
		p, report, err = try(ctx, plan, stdout)
	}
	ticks, err := pidfd.StartTicks(p.Child.PID())
	if err != nil && !errors.Is(err, pidfd.ErrGone) {
		p.Child.Kill()
		return Process{}, fmt.Errorf("when did it start: %w", err)
	}
	h.Version, h.PID, h.StartTicks = 1, p.Child.PID(), ticks
	h.Confinement, h.Unconfined = append(report.InForce, "seccomp"), report.Missing
	if plan.Group != nil {
		h.Confinement = append(h.Confinement, "cgroup")
	}
	p.Record = h
	return p, nil
}

func try(ctx context.Context, plan launch.Plan, stdout io.Writer) (Process, launch.Report, error) {
	l, err := launch.Prepare(context.WithoutCancel(ctx), plan) // the machine outlives the call
	if err != nil {
		return Process{}, launch.Report{}, err
	}
	defer l.Close()
	p := Process{Stderr: &tail.Buffer{}}
	if stdout == nil {
		stdout = p.Stderr
	}
	l.Cmd.Stdout, l.Cmd.Stderr = stdout, p.Stderr
	l.Cmd.WaitDelay = time.Second
	if p.Child, err = child.Start(l.Cmd); err != nil {
		return p, launch.Report{}, err
	}
	report, err := l.Report(ctx)
	if err != nil {
		err = p.Blame(err)
		p.Child.Kill()
		return p, report, p.Said(fmt.Errorf("confine it: %w", err))
	}
	return p, report, nil
}
