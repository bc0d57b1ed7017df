// Package clock tells when the wall clock jumps: it was set, or the machine slept.
//
// Layer: leaf.
package clock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Watch waits for jumps of the wall clock. It is for one caller at a time.
type Watch struct{ timer *os.File }

// NewWatch returns a watch, which holds a descriptor until Close.
func NewWatch() (*Watch, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	return &Watch{os.NewFile(uintptr(fd), "timerfd")}, nil
}

// Close ends the watch, and a Wait under way.
func (w *Watch) Close() error { return w.timer.Close() }

// Wait returns when the wall clock has jumped, or limit is over, or ctx is.
func (w *Watch) Wait(ctx context.Context, limit time.Duration) (jumped bool, err error) {
	until := unix.ItimerSpec{Value: unix.NsecToTimespec(time.Now().Add(limit).UnixNano())}
	conn, err := w.timer.SyscallConn()
	if err != nil {
		return false, err
	}
	var serr error
	err = conn.Control(func(fd uintptr) {
		serr = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &until, nil)
	})
	if err := errors.Join(err, serr); err != nil && !errors.Is(err, unix.ECANCELED) { // that: it jumped before, and is armed
		return false, fmt.Errorf("timerfd: %w", err)
	}
	if err := w.timer.SetReadDeadline(time.Time{}); err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = w.timer.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err = w.timer.Read(make([]byte, 8))
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case errors.Is(err, unix.ECANCELED):
		return true, nil
	}
	return false, err
}
