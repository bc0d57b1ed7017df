package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sink takes a command's output. A call that fails is the last one of its kind: what comes later is dropped.
type Sink interface {
	Stdout(p []byte) error
	Stderr(p []byte) error
}

// Result is how a command ended.
type Result struct {
	Code     int
	Signal   syscall.Signal // 0: none
	TimedOut bool
	Took     time.Duration // from fork to exit
}

// Command is a running command.
type Command struct {
	r       *Runner
	id      string
	sink    Sink
	proc    *os.Process
	group   string // its cgroup, "" without
	stdin   *os.File
	started time.Time
	outputs sync.WaitGroup
	timeout atomic.Bool

	endMu sync.Mutex
	ended bool // its process was waited for: its pid may be another's

	done   chan struct{}
	result Result
}

// PID is the process's id.
func (c *Command) PID() int { return c.proc.Pid }

// Done is closed once the command has ended and its output is delivered.
func (c *Command) Done() <-chan struct{} { return c.done }

// Result returns how it ended. Done is closed.
func (c *Command) Result() Result { return c.result }

// start forks and begins to watch.
func (c *Command) start(p *process, s Spec) (err error) {
	var theirs []*os.File
	var ours [3]*os.File
	defer func() {
		closeAll(theirs)
		if err != nil {
			closeAll(ours[:])
		}
	}()
	for i := range ours {
		var their *os.File
		if ours[i], their, err = stream(i, s.Stdin); err != nil {
			return cannot("streams: %w", err)
		}
		theirs = append(theirs, their)
	}
	var group *os.File
	if c.r.cg != nil {
		if group, err = c.r.cg.take(); err != nil {
			return cannot("%w", err)
		}
		c.group = group.Name()
		defer func() {
			_ = group.Close()
			if err != nil {
				c.r.cg.release(c.group)
			}
		}()
	}
	c.started = time.Now()
	var reaped func()
	if c.proc, reaped, err = c.r.fork(p, append(theirs[:3:3], p.extra...), group); err != nil {
		return err
	}
	c.stdin = ours[0]
	c.outputs.Add(2)
	go c.pump(ours[1], c.sink.Stdout)
	go c.pump(ours[2], c.sink.Stderr)
	go c.watch(ours[1:], s.Timeout, reaped)
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// stream opens both ends of standard stream i.
func stream(i int, stdin bool) (ours, theirs *os.File, err error) {
	if i == 0 && !stdin {
		theirs, err = os.Open(os.DevNull)
		return nil, theirs, err
	}
	r, w, err := os.Pipe()
	if i == 0 {
		return w, r, err
	}
	return r, w, err
}

// watch waits for the process and then for what it has printed.
func (c *Command) watch(outputs []*os.File, timeout time.Duration, reaped func()) {
	var timer *time.Timer
	if timeout > 0 {
		timer = time.AfterFunc(timeout, func() {
			c.timeout.Store(true)
			c.Kill()
		})
	}
	state, err := c.proc.Wait()
	took := time.Since(c.started)
	c.endMu.Lock()
	c.ended = true
	c.endMu.Unlock()
	reaped()
	if timer != nil && !timer.Stop() && c.timeout.Load() {
		c.result.TimedOut = true
	}
	c.result.Took = took
	c.result.Code = codeNotExecutable
	if err == nil {
		c.result.Code, c.result.Signal = exitOf(state)
	}
	if c.result.TimedOut {
		c.result.Code = codeTimeout
	}
	for _, f := range outputs {
		_ = f.SetReadDeadline(time.Unix(1, 0)) // see pump
	}
	c.outputs.Wait()
	if c.stdin != nil {
		_ = c.stdin.Close()
	}
	c.r.forget(c)
	close(c.done)
	if c.group != "" {
		c.r.cg.release(c.group)
		c.r.cg.prepare()
	}
}

func exitOf(state *os.ProcessState) (int, syscall.Signal) {
	ws, ok := state.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return codeSignal + int(ws.Signal()), ws.Signal()
	}
	return state.ExitCode(), 0
}

const chunk = 32 << 10

// pump delivers what comes out of f. When the process has ended (a deadline in the past tells), it delivers what is in the
// pipe by then and lets go of the command; what background processes print later is read and dropped.
func (c *Command) pump(f *os.File, deliver func([]byte) error) {
	buf := make([]byte, chunk)
	err := copyOut(f, deliver, buf, -1)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = f.SetReadDeadline(time.Time{})
		left, ierr := pending(f)
		if ierr == nil && left > 0 {
			err = copyOut(f, deliver, buf, left)
		}
	}
	c.outputs.Done()
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		_ = f.Close()
		return
	}
	_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf[:4<<10])
	_ = f.Close()
}

// copyOut reads until an error or, unless it is negative, limit bytes. When delivering fails it goes on reading.
func copyOut(f *os.File, deliver func([]byte) error, buf []byte, limit int) error {
	var total int
	for limit < 0 || total < limit {
		b := buf
		if limit >= 0 {
			b = buf[:min(len(buf), limit-total)]
		}
		n, err := f.Read(b)
		total += n
		if n > 0 && deliver != nil && deliver(b[:n]) != nil {
			deliver = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pending returns how many bytes can be read without waiting.
func pending(f *os.File) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n, errors.Join(cerr, err)
}

// WriteStdin writes to the command and waits until it takes it. Without one who reads it does nothing.
func (c *Command) WriteStdin(p []byte) {
	if c.stdin != nil {
		_, _ = c.stdin.Write(p)
	}
}

// CloseStdin ends the command's input.
func (c *Command) CloseStdin() {
	if c.stdin != nil {
		_ = c.stdin.Close()
	}
}

// Signal sends sig: what a terminal would send goes to the process group, everything else to the process; with all, it
// goes to everything that the command started.
func (c *Command) Signal(sig syscall.Signal, all bool) error {
	c.endMu.Lock()
	defer c.endMu.Unlock()
	if c.ended {
		return errNotRunning
	}
	pid := c.proc.Pid
	switch {
	case all && c.group != "":
		members, err := pids(c.group)
		if err != nil {
			return fmt.Errorf("the command's processes: %w", err)
		}
		for _, p := range members {
			_ = syscall.Kill(p, sig)
		}
		return nil
	case all || fromTerminal(sig):
		return syscall.Kill(-pid, sig)
	}
	return syscall.Kill(pid, sig)
}

func fromTerminal(sig syscall.Signal) bool {
	switch sig {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGTSTP, syscall.SIGCONT, syscall.SIGWINCH:
		return true
	}
	return false
}

// Kill ends all that the command started.
func (c *Command) Kill() {
	if c.group != "" {
		_ = c.r.cg.kill(c.group)
		return
	}
	c.endMu.Lock()
	defer c.endMu.Unlock()
	if !c.ended {
		_ = syscall.Kill(-c.proc.Pid, syscall.SIGKILL)
	}
}
