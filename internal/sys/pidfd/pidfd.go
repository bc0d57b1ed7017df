// Package pidfd names processes so that a reused number is told from the one that was meant: by pid and start time, held
// by a descriptor.
//
// Layer: leaf. It imports none of ours.
package pidfd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone is returned for a process that has ended, or whose number belongs to another one now.
var ErrGone = errors.New("process is gone")

// StartTicks returns when pid started, in clock ticks since boot: field 22 of /proc/PID/stat.
func StartTicks(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, ErrGone
	}
	if err != nil {
		return 0, err
	}
	return parseStat(b)
}

// ErrForeign is returned for a process of another user.
var ErrForeign = errors.New("it is not one of your own processes")

// OwnStartTicks is StartTicks of a process that is our own user's.
func OwnStartTicks(pid int) (uint64, error) {
	fd, err := Open(pid, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = fd.Close() }()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, ErrGone
	}
	if err != nil {
		return 0, err
	}
	if uid, err := effectiveUID(b); err != nil || uid != os.Geteuid() {
		return 0, errors.Join(ErrForeign, err)
	}
	ticks, err := StartTicks(pid)
	if err == nil {
		err = fd.Signal(0) // what was read is of the one that is held, if that still is there
	}
	return ticks, err
}

// effectiveUID finds it in /proc/PID/status.
func effectiveUID(status []byte) (int, error) {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("Uid:")); ok {
			if fields := bytes.Fields(rest); len(fields) == 4 {
				return strconv.Atoi(string(fields[1]))
			}
		}
	}
	return 0, errors.New("malformed /proc/PID/status")
}

// parseStat finds field 22. The second one, a name in parentheses, may hold anything.
func parseStat(b []byte) (uint64, error) {
	end := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[end+1:]))
	if end < 0 || len(fields) < 20 {
		return 0, errors.New("malformed /proc/PID/stat")
	}
	if s := fields[0]; s == "Z" || s == "X" {
		return 0, ErrGone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// FD holds on to one process.
type FD struct {
	f   *os.File
	pid int
}

// Open returns a hold on the process pid if it is the one that started at startTicks (0: any), else ErrGone.
func Open(pid int, startTicks uint64) (*FD, error) {
	if pid <= 0 {
		return nil, ErrGone
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) { // EINVAL: a thread's number now
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	p := &FD{f: os.NewFile(uintptr(fd), "pidfd"), pid: pid} //nolint:gosec // a descriptor is small
	// Looked at after the descriptor was opened: whose it is can no longer change.
	ticks, err := StartTicks(pid)
	if err == nil && startTicks != 0 && ticks != startTicks {
		err = ErrGone
	}
	if err != nil {
		_ = p.Close()
		return nil, err
	}
	return p, nil
}

// Close lets go.
func (p *FD) Close() error { return p.f.Close() }

// Signal sends sig, ErrGone if the process has ended.
func (p *FD) Signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(int(p.f.Fd()), sig, nil, 0) //nolint:gosec // a descriptor is small
	if errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	return err
}

// Wait returns nil when the process has ended; it may be an unreaped zombie then.
func (p *FD) Wait(ctx context.Context) error {
	for {
		timeout := 250 * time.Millisecond
		if d, ok := ctx.Deadline(); ok {
			timeout = max(0, min(timeout, time.Until(d)))
		}
		poll := []unix.PollFd{{Fd: int32(p.f.Fd()), Events: unix.POLLIN}} //nolint:gosec // a descriptor is small
		n, err := unix.Poll(poll, int(timeout.Milliseconds())+1)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for process %d: %w", p.pid, err)
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// Kill ends a process, if it is still the one that was meant, and waits until it is gone.
func Kill(ctx context.Context, pid int, ticks uint64) error {
	fd, err := Open(pid, ticks)
	if err == nil {
		defer func() { _ = fd.Close() }()
		err = fd.Signal(unix.SIGKILL)
	}
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	return fd.Wait(ctx)
}
