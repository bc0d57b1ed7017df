// Package launch starts a program confined. The parent prepares a command that runs this very program again as the hidden
// subcommand; that takes everything from itself that the program does not need, tells the parent what is in force, and
// becomes the program.
//
// Layer: leaf. It imports none of ours.
package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Command is the hidden subcommand under which the program must call Main.
const Command = "launch"

// FirstFile is the number under which the program finds the first of Plan.Files; the others follow.
const FirstFile = 5

const (
	fdPlan   = 3 // the Plan as JSON, a memfd
	fdReport = 4 // where Main reports; closed by the exec
)

// Plan says what runs, and with what.
type Plan struct {
	Program string
	Args    []string // without the program's name
	Env     []string

	// Files are inherited, the first one as descriptor FirstFile.
	Files []*os.File `json:"-"`

	// UID is the user and group id to become, which only root can; 0 keeps ours.
	UID uint32
	// Groups are the supplementary groups where UID is set.
	Groups []int

	// What can be reached by path, the program itself aside. Absent ones are passed over.
	ReadDirs   []string
	ReadFiles  []string
	WriteFiles []string
	Devices    []string // read, written and controlled

	// WorkDir is its working directory, in which it may make sockets and nothing else; "" = / and none.
	WorkDir string

	// TAP is a network card for it, or nil.
	TAP *TAP

	// Network means that it goes out itself: it stays in our network namespace, and may connect.
	Network bool

	// Group is the control group in which it begins, or nil.
	Group *os.File `json:"-"`

	MaxFiles     uint64 // RLIMIT_NOFILE
	MaxFileBytes int64  // RLIMIT_FSIZE; 0 = no limit
	MaxMemory    int64  // RLIMIT_DATA, which is all that it may write to and nobody else; 0 = no limit

	// Root gives it a root of its own, with nothing in it but the paths above, and the namespaces that this takes.
	Root bool

	// Parent is who must be alive, for Confine. Prepare fills in the rest: ParentFD is its parent's pidfd, ParentNS the
	// namespaces that are not to be the program's.
	Parent   int
	ParentFD int
	ParentNS map[string]string

	// RootRefused and Refused are why a root of its own, or any namespace, could not be had when they were asked for; then they
	// are not asked for again. See Lesser.
	RootRefused string
	Refused     string
}

// Report says which measures are in force, and which are missing with the reason.
type Report struct {
	InForce []string `json:"in_force"`
	Missing []string `json:"missing,omitempty"`
	Error   string   `json:"error,omitempty"` // why the program could not be started

	abi int // Landlock's
}

// Launch is a command that is ready to be started, once.
type Launch struct {
	Cmd    *exec.Cmd
	plan   *os.File
	report *os.File // our end
	theirs *os.File
	parent *os.File
}

// Prepare makes the command of a plan. The caller starts it (from a thread that lives as long as it does) and then reads
// the report; Close is called in any case. ctx bounds the process.
func Prepare(ctx context.Context, p Plan) (_ *Launch, err error) {
	if p.ParentNS, err = ours(); err != nil {
		return nil, err
	}
	l := &Launch{}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	p.ParentFD = FirstFile + len(p.Files)
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, fmt.Errorf("a pidfd of our own: %w", err)
	}
	l.parent = os.NewFile(uintptr(fd), "parent") //nolint:gosec // a descriptor is small
	if p.WorkDir != "" {                         // the path may be one that only we can follow
		if p.WorkDir, err = filepath.EvalSymlinks(p.WorkDir); err != nil {
			return nil, fmt.Errorf("its working directory: %w", err)
		}
	}
	if l.plan, err = memfile(p); err != nil {
		return nil, err
	}
	if l.report, l.theirs, err = os.Pipe(); err != nil {
		return nil, fmt.Errorf("pipe for the launcher's report: %w", err)
	}
	l.Cmd = exec.CommandContext(ctx, "/proc/self/exe", Command)
	l.Cmd.Env, l.Cmd.Dir = p.Env, p.WorkDir
	l.Cmd.ExtraFiles = append(append([]*os.File{l.plan, l.theirs}, p.Files...), l.parent)
	l.Cmd.SysProcAttr = attributes(p)
	return l, nil
}

// memfile puts a plan where the child can read it without a deadlock, however long it is.
func memfile(p Plan) (*os.File, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("plan", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("file for the launcher's plan: %w", err)
	}
	f := os.NewFile(uintptr(fd), "plan") //nolint:gosec // a descriptor is small
	if _, err := f.Write(b); err != nil {
		_ = f.Close()
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Report waits until the launcher has become the program, and tells how that went.
func (l *Launch) Report(ctx context.Context) (Report, error) {
	_ = l.theirs.Close() // the child's copy alone keeps the pipe open
	stop := context.AfterFunc(ctx, func() { _ = l.report.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := io.ReadAll(io.LimitReader(l.report, 64<<10))
	if ctx.Err() != nil {
		return Report{}, fmt.Errorf("no report from the launcher: %w", ctx.Err())
	}
	if err != nil {
		return Report{}, fmt.Errorf("the launcher's report: %w", err)
	}
	var r Report
	if len(b) == 0 {
		return r, errors.New("the launcher ended without a report")
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("the launcher's report: %w", err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// Close gives up what the parent holds.
func (l *Launch) Close() {
	for _, f := range []*os.File{l.plan, l.report, l.theirs, l.parent} {
		if f != nil {
			_ = f.Close()
		}
	}
}
