package tunnel

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a connection that is not read may be broken before we look.
const patience = time.Second

// polled is a connection that the runtime can wait for.
type polled interface {
	syscall.Conn
	SetReadDeadline(at time.Time) error
}

// watch waits for a break of the connection while nobody reads it: then no Read would tell, and its place would be taken as long as
// the other side does not move. What it has said before the break counts for nothing more. stop ends the watch.
func (j *join) watch() (stop func()) {
	conn, ok := j.conn.(polled)
	if !ok {
		return func() {}
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTimer(patience)
		defer t.Stop()
		select {
		case <-quit:
			return
		case <-t.C:
		}
		if raw.Read(broken) == nil {
			j.fail(syscall.ECONNRESET)
		}
	}()
	return func() {
		close(quit)
		_ = conn.SetReadDeadline(time.Unix(1, 0))
		<-done
		_ = conn.SetReadDeadline(time.Time{})
	}
}

// broken reports whether a connection has an error, which is more than an end. The runtime calls it again when something has
// happened to it.
func broken(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd)}} //nolint:gosec // a descriptor
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLERR != 0
}
