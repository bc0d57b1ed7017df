// Package nsinit runs one program as the only thing in new mount and PID namespaces, with a /tmp that exists nowhere
// else. The namespaces' init is this program itself; it ends with its parent, and everything in there with it, so that
// a kill -9 of any process leaves no process, no mount and no file.
//
// Layer: leaf. It imports none of ours.
package nsinit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Command is the hidden subcommand under which the program must call Main.
const Command = "nsinit"

// Spec says what runs in the namespaces, and how they look.
type Spec struct {
	Unshare string // path of util-linux' unshare
	// UserNamespace adds one in which the caller is root and has all of his subordinate ids.
	UserNamespace bool
	// What is at /tmp: a tmpfs of TmpfsBytes, or the directory TmpDir. Its content is removed at the end in any case
	// but a kill -9, after which Clean removes it.
	TmpfsBytes int64
	TmpDir     string
	Files      map[string][]byte // put there, by name

	Argv []string // the program, by its absolute path; none: only TmpDir is emptied
	Env  []string
}

// Descriptors that the init inherits.
const (
	fdSelf    = 3 // this program, which may have no path in there
	fdControl = 4 // the Spec as JSON; its end means that the parent is gone
)

// Run starts the namespaces and returns when everything in them has ended. An error that wraps *exec.ExitError is the
// program's own end.
func Run(ctx context.Context, s Spec, stdout, stderr io.Writer) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("open this program: %w", err)
	}
	defer func() { _ = self.Close() }()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close(); _ = w.Close() }()
	args := []string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if s.UserNamespace {
		args = append([]string{"--map-auto", "--map-root-user"}, args...)
	}
	args = append(args, "--", "/proc/self/fd/"+strconv.Itoa(fdSelf), Command)
	cmd := exec.CommandContext(ctx, s.Unshare, args...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.ExtraFiles = []*os.File{self, r}
	// An own session: a Ctrl-C at the terminal is for the caller to act on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.Unshare, err)
	}
	_ = r.Close()
	err = json.NewEncoder(w).Encode(s)
	killRest(cmd.Process.Pid)
	if werr := cmd.Wait(); werr != nil {
		err = werr
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// killRest waits for the end of unshare, and ends what it left in its session: where namespaces are refused, that is a
// helper which would wait for ever, and hold our pipes. The zombie keeps its id from being another's until then.
func killRest(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
}

// Clean empties and removes a directory that a killed Run with it as TmpDir has left. It may hold files of subordinate
// ids, which their owner can only remove from inside.
func Clean(ctx context.Context, unshare string, userNamespace bool, dir string) error {
	var told strings.Builder
	err := Run(ctx, Spec{Unshare: unshare, UserNamespace: userNamespace, TmpDir: dir}, io.Discard, &limited{w: &told, left: 4096})
	if err != nil {
		return fmt.Errorf("empty %s: %w: %s", dir, err, strings.TrimSpace(told.String()))
	}
	return os.Remove(dir)
}

// limited keeps the first bytes and swallows the rest.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	_, err := l.w.Write(p[:n])
	return len(p), err
}

// ExitCode returns the exit status of the program that ran, if it was that what ended with err.
func ExitCode(err error) (int, bool) {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode(), true
	}
	return 0, false
}
