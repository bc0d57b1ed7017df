package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Monotonic is the time of a clock that goes on evenly, and not while the machine sleeps: the same in all processes, until the
// next boot.
func Monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // never
	}
	return time.Duration(ts.Nano())
}
