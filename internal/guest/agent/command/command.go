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

	"github.com/smolvm/smolvm/internal/guest/agent/output"
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

	slave *os.File // the command's end of its terminal, held open until it has ended; nil without one

	info Info // what does not change
	up   bool // it was started; guarded by r.mu
	log  *output.Log
	keep atomic.Bool // it outlives the call that started it

	endMu sync.Mutex
	ended bool // its process was waited for: its pid may be another's

	exited  chan struct{} // closed when its process has ended
	done    chan struct{}
	result  Result
	endedAt time.Time
}

// PID is the process's id.
func (c *Command) PID() int { return c.proc.Pid }

// Done is closed once the command has ended and its output is delivered.
func (c *Command) Done() <-chan struct{} { return c.done }

// Result returns how it ended. Done is closed.
func (c *Command) Result() Result { return c.result }

// streams opens both ends of the standard streams. Those of a terminal are one file.
func streams(s Spec, u user) (ours, theirs [3]*os.File, err error) {
	if s.Terminal != nil {
		our, their, err := s.Terminal.open(u)
		return [3]*os.File{our}, [3]*os.File{their, their, their}, err
	}
	for i := range ours {
		if ours[i], theirs[i], err = stream(i, s.Stdin); err != nil {
			closeAll(ours[:])
			closeAll(theirs[:])
			return ours, theirs, err
		}
	}
	return ours, theirs, nil
}

// start forks and begins to watch.
func (c *Command) start(p *process, s Spec) (err error) {
	ours, theirs, err := streams(s, p.user)
	if err != nil {
		return cannot("streams: %w", err)
	}
	defer func() {
		if err != nil {
			closeAll(ours[:])
		}
		if err != nil || s.Terminal == nil {
			closeAll(theirs[:])
		}
	}()
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
	if s.Terminal != nil {
		c.slave = theirs[0]
		c.outputs.Add(1)
		go c.pumpTerminal(ours[0], c.deliver(output.Stdout, c.sink.Stdout))
		go c.watch(ours[:1], s.Timeout, reaped)
		return nil
	}
	c.outputs.Add(2)
	go c.pump(ours[1], c.deliver(output.Stdout, c.sink.Stdout))
	go c.pump(ours[2], c.deliver(output.Stderr, c.sink.Stderr))
	go c.watch(ours[1:], s.Timeout, reaped)
	return nil
}

// deliver keeps output and passes it to the caller, who is gone once that fails.
func (c *Command) deliver(s output.Stream, sink func([]byte) error) func([]byte) {
	return func(p []byte) {
		c.log.Write(s, p)
		if sink != nil && sink(p) != nil {
			sink = nil
		}
	}
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
	close(c.exited)
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
	closeAll([]*os.File{c.stdin, c.slave})
	c.log.End()
	c.endedAt = time.Now()
	c.r.retire(c)
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

func noDeadline() time.Time { return time.Time{} }

// pump delivers what comes out of f. When the process has ended (a deadline in the past tells), it delivers what is in the
// pipe by then and lets go of the command; what background processes print later is read and dropped.
func (c *Command) pump(f *os.File, deliver func([]byte)) {
	buf := make([]byte, chunk)
	err := copyOut(f, deliver, buf, -1)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = f.SetReadDeadline(noDeadline())
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

// copyOut reads until an error or, unless it is negative, limit bytes.
func copyOut(f *os.File, deliver func([]byte), buf []byte, limit int) error {
	var total int
	for limit < 0 || total < limit {
		b := buf
		if limit >= 0 {
			b = buf[:min(len(buf), limit-total)]
		}
		n, err := f.Read(b)
		total += n
		if n > 0 {
			deliver(b[:n])
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

// CloseStdin ends the command's input; that of a terminal goes on.
func (c *Command) CloseStdin() {
	if c.stdin != nil && c.slave == nil {
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
		if group := c.foreground(); group > 1 && !all {
			pid = group
		}
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
