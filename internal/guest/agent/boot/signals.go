package boot

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Deaf makes us survive every signal that can be survived. The kernel keeps from process 1 what it has no handler for, but
// Go's runtime installs handlers for all, whose default is our end, and ours is the guest's. They are caught, not ignored,
// because what is ignored would be so in our children too.
func Deaf() {
	const last = 64
	var all []os.Signal
	for n := unix.Signal(1); n <= last; n++ {
		switch n {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGPROF: // the runtime's own, without harm
		default:
			all = append(all, n)
		}
	}
	// A full channel drops what comes.
	signal.Notify(make(chan os.Signal, 1), all...)
}
