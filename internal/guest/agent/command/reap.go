package command

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

// children tells processes that somebody waits for from orphans. Its lock is held over a fork and its entry, so that a
// reaper never takes the exit status of a process whose entry is still to come.
type children struct {
	mu    sync.Mutex
	start *sync.Cond // broadcast when a process was started
	owned map[int]chan struct{}
}

func newChildren() *children {
	c := &children{owned: map[int]chan struct{}{}}
	c.start = sync.NewCond(&c.mu)
	return c
}

// enter notes that pid's parent will wait for it. c.mu is held. The returned function is called when it has.
func (c *children) enter(pid int) (done func()) {
	gone := make(chan struct{})
	c.owned[pid] = gone
	c.start.Broadcast()
	return func() {
		c.mu.Lock()
		delete(c.owned, pid)
		c.mu.Unlock()
		close(gone)
	}
}

// reap takes away orphans for ever, as process 1 must.
func (c *children) reap() {
	for {
		pid, err := nextDead()
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil: // no child at all: orphans come from children only
			c.mu.Lock()
			if len(c.owned) == 0 {
				c.start.Wait()
			}
			c.mu.Unlock()
			continue
		}
		c.mu.Lock()
		gone, ours := c.owned[pid]
		if !ours {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
		c.mu.Unlock()
		if ours {
			<-gone
		}
	}
}
