package command

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// Terminal is what a command's terminal is like at its start.
type Terminal struct {
	Rows, Cols uint16 // 0: unknown
	Term       string // the caller's TERM
}

// fallbackTerm is what is told of a terminal that this machine does not know.
const fallbackTerm = "xterm-256color"

// term is TERM as this machine knows it: programs refuse to run on a terminal that is not in its database.
func (t *Terminal) term() string {
	if regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9+._-]{0,63}$`).MatchString(t.Term) {
		for _, dir := range []string{"/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo"} {
			if _, err := os.Stat(filepath.Join(dir, t.Term[:1], t.Term)); err == nil {
				return t.Term
			}
		}
	}
	return fallbackTerm
}

// open makes the terminal, which belongs to u.
func (t *Terminal) open(u user) (ours, theirs *os.File, err error) {
	master, theirs, err := pty.Open()
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		_ = master.Close()
		if err != nil {
			closeAll([]*os.File{ours, theirs})
			ours, theirs = nil, nil
		}
	}()
	// The library's file blocks its reader for good. One that the runtime polls can be interrupted.
	fd, err := unix.FcntlInt(master.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, theirs, err
	}
	if err = unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, theirs, err
	}
	ours = os.NewFile(uintptr(fd), "terminal")
	if t.Rows > 0 && t.Cols > 0 {
		err = setSize(ours, t.Rows, t.Cols)
	}
	if err == nil && os.Geteuid() == 0 {
		err = theirs.Chown(int(u.uid), -1)
	}
	return ours, theirs, err
}

func setSize(f *os.File, rows, cols uint16) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	return errors.Join(cerr, err)
}

// Resize tells the command's terminal its size. Without a terminal it does nothing.
func (c *Command) Resize(rows, cols uint16) error {
	c.endMu.Lock()
	defer c.endMu.Unlock()
	if c.ended {
		return errNotRunning
	}
	if c.slave == nil {
		return nil
	}
	return setSize(c.stdin, rows, cols)
}

// foreground is the process group that the terminal's keys would reach, 0 without one.
func (c *Command) foreground() int {
	if c.slave == nil {
		return 0
	}
	raw, err := c.stdin.SyscallConn()
	if err != nil {
		return 0
	}
	var group int
	if raw.Control(func(fd uintptr) { group, err = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP) }) != nil || err != nil {
		return 0
	}
	return group
}

// maxDrain bounds what a terminal is believed to hold at the end: another process may still print to it.
const maxDrain = 1 << 20

// pumpTerminal delivers what comes out of the terminal until the process has ended, and then what is in it. We hold the
// other end open too, so that programs may close theirs for a while.
func (c *Command) pumpTerminal(f *os.File, deliver func([]byte)) {
	defer c.outputs.Done()
	buf := make([]byte, chunk)
	_ = copyOut(f, deliver, buf, -1)
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	<-c.exited
	for total := 0; total < maxDrain; {
		var n int
		_ = f.SetReadDeadline(noDeadline())
		rerr := raw.Read(func(fd uintptr) bool {
			n, err = unix.Read(int(fd), buf)
			return true // never wait
		})
		if err == syscall.EINTR { //nolint:errorlint // a bare errno
			continue
		}
		if rerr != nil || err != nil || n <= 0 {
			return
		}
		total += n
		deliver(buf[:n])
	}
}
