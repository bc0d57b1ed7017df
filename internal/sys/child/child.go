// Package child starts the processes that we own: supervisor, monitor, gateway. The parent-death signal follows the
// thread that forked, not the process (golang/go#27505), so each child is started from a goroutine that is locked to its
// thread for as long as the child lives.
//
// Layer: leaf. It imports none of ours.
package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Child is a process that was started. Its end is collected in the background.
type Child struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of cmd.Wait; readable after done
}

// Start starts cmd so that it ends with this process: SIGKILL unless cmd names another parent-death signal. Its working
// directory is / and its environment Environ() unless cmd says otherwise, its umask 077; it inherits no descriptors but
// the standard ones and cmd.ExtraFiles.
func Start(cmd *exec.Cmd) (*Child, error) {
	attr := attrOf(cmd)
	if attr.Pdeathsig == 0 {
		attr.Pdeathsig = syscall.SIGKILL
	}
	return start(cmd)
}

// StartDetached starts cmd in a session of its own, to outlive this process; in all else it is Start.
func StartDetached(cmd *exec.Cmd) (*Child, error) {
	attrOf(cmd).Setsid = true
	return start(cmd)
}

func attrOf(cmd *exec.Cmd) *syscall.SysProcAttr {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	return cmd.SysProcAttr
}

func start(cmd *exec.Cmd) (*Child, error) {
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	if cmd.Env == nil {
		cmd.Env = Environ()
	}
	c := &Child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go c.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// run forks, and keeps its thread until the child is gone. The thread is never unlocked, so that it ends with the
// goroutine and takes its own umask with it.
func (c *Child) run(started chan<- error) {
	runtime.LockOSThread()
	if err := c.fork(); err != nil {
		started <- err
		return
	}
	started <- nil
	c.err = c.cmd.Wait()
	close(c.done)
}

func (c *Child) fork() error {
	// A thread of its own view of cwd and umask: the rest of this process keeps its own.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare the file system attributes of a thread: %w", err)
	}
	unix.Umask(0o077)
	// What we were started with and did not ask for goes no further.
	if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("mark descriptors close-on-exec: %w", err)
	}
	return c.cmd.Start()
}

// PID is the child's process id. It may be reused once Done is closed.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Done is closed when the child has ended and was reaped.
func (c *Child) Done() <-chan struct{} { return c.done }

// Wait waits for the end and returns what exec.Cmd.Wait did. Any number of callers may wait.
func (c *Child) Wait() error {
	<-c.done
	return c.err
}

// State is how the child ended; nil before Done is closed.
func (c *Child) State() *os.ProcessState {
	select {
	case <-c.done:
		return c.cmd.ProcessState
	default:
		return nil
	}
}

// Signal sends sig. A child that has ended is no error.
func (c *Child) Signal(sig os.Signal) error {
	err := c.cmd.Process.Signal(sig)
	select {
	case <-c.done:
		return nil
	default:
	}
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Kill kills the child and waits until it was reaped.
func (c *Child) Kill() {
	_ = c.cmd.Process.Kill()
	<-c.done
}

// Environ is the environment of a child: a fixed search path, HOME, a UTF-8 locale, and those of keep that are set.
func Environ(keep ...string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	for _, name := range append([]string{"HOME"}, keep...) {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// Named are the names in our environment that begin with prefix.
func Named(prefix string) []string {
	var names []string
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}
