package cli_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// processes are those of the double's guest: "abc123" runs on a terminal, "abd456" has ended.
func processes() []api.Process {
	begun := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return []api.Process{
		{ExecID: "abc123", PID: 41, Command: "bash \x1b[31mred", User: "root", TTY: true, Stdin: true, Main: true, Started: begun, OutputBytes: 6},
		{ExecID: "abd456", PID: 42, Command: "make all", User: "root", Detached: true, Started: begun, Ended: &begun, Result: &api.ExecResult{ExitCode: 3}, OutputBytes: 2048, OutputFrom: 1024},
	}
}

func (guest) Processes(context.Context) ([]api.Process, error) { return processes(), nil }

func (guest) Process(_ context.Context, name string) (api.Process, error) {
	for _, p := range processes() {
		if name == "" && p.Main || name != "" && strings.HasPrefix(p.ExecID, name) {
			return p, nil
		}
	}
	return api.Process{}, errdefs.NotFound.Errorf("no such command: %q", name).WithRemedy("smolvm ps -a web")
}

func (g guest) Wait(ctx context.Context, name string) (api.ExecResult, error) {
	p, err := g.Process(ctx, name)
	if err != nil || p.Result == nil {
		return api.ExecResult{ExitCode: 5}, err
	}
	return *p.Result, nil
}

func (guest) Signal(_ context.Context, name string, sig int, all bool) error {
	call("signal %s %d all=%v", name, sig, all)
	return nil
}

func (guest) Keep(_ context.Context, name string) error {
	call("keep %s", name)
	return nil
}

func (g guest) Attach(ctx context.Context, req api.AttachRequest, s lifecycle.AttachIO) (api.AttachResult, error) {
	p, err := g.Process(ctx, req.Process)
	if err != nil {
		return api.AttachResult{}, err
	}
	call("attach %s offset=%d follow=%v stdin=%v", req.Process, req.Offset, !req.NoFollow, req.Stdin)
	if p.OutputFrom > req.Offset {
		s.Gap(p.OutputFrom - req.Offset)
	}
	_, _ = io.WriteString(s.Stdout, "output")
	if req.Stdin {
		if _, err := io.Copy(s.Stdout, s.Stdin); err != nil {
			return api.AttachResult{}, err
		}
		if ctx.Err() != nil {
			return api.AttachResult{}, context.Cause(ctx)
		}
	}
	return api.AttachResult{Result: p.Result, Offset: p.OutputBytes}, nil
}

// onTerminal runs the program on a terminal of its own.
type onTerminal struct {
	*exec.Cmd
	keys   *os.File
	theirs *os.File
	out    chan byte
	before unix.Termios
	calls  string
}

func termios(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

func terminal(t *testing.T, args ...string) *onTerminal {
	t.Helper()
	ours, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	if err := pty.Setsize(ours, &pty.Winsize{Rows: 31, Cols: 77}); err != nil {
		t.Fatal(err)
	}
	o := &onTerminal{keys: ours, theirs: theirs, out: make(chan byte, 1<<16), before: termios(t, theirs), calls: t.TempDir() + "/calls"}
	go func() {
		r := bufio.NewReader(ours)
		for b, err := r.ReadByte(); err == nil; b, err = r.ReadByte() {
			o.out <- b
		}
	}()
	o.Cmd = exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	o.Env = append(os.Environ(), "CLI_TEST_CHILD=1", "TERM=vt220", "CALLS="+o.calls)
	o.Stdin, o.Stdout, o.Stderr = theirs, theirs, theirs
	if err := o.Start(); err != nil {
		t.Fatal(err)
	}
	return o
}

// shows wants a text on the next lines.
func (o *onTerminal) shows(t *testing.T, want string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	var seen strings.Builder
	for !strings.Contains(seen.String(), want) {
		select {
		case b := <-o.out:
			seen.WriteByte(b)
		case <-limit:
			t.Fatalf("no %q in %q", want, seen.String())
		}
	}
}

// ends wants an exit code, and the terminal as it was.
func (o *onTerminal) ends(t *testing.T, code int) {
	t.Helper()
	_ = o.Wait()
	if got := o.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
	if now := termios(t, o.theirs); now != o.before {
		t.Errorf("the terminal was %+v and is %+v", o.before, now)
	}
}

func (o *onTerminal) types(t *testing.T, keys string) {
	t.Helper()
	if _, err := io.WriteString(o.keys, keys); err != nil {
		t.Fatal(err)
	}
}

// TestTerminal: a command has all keys, and the terminal is as it was afterwards, however the command ends.
func TestTerminal(t *testing.T) {
	t.Run("keys and size", func(t *testing.T) {
		o := terminal(t, "exec", "-it", "web", "--", "tty")
		o.shows(t, "31x77 vt220\n")
		o.types(t, "a\x03\x1a\x1cq")
		o.shows(t, `"a\x03\x1a\x1cq"`)
		o.ends(t, 7)
	})
	t.Run("resize", func(t *testing.T) {
		o := terminal(t, "shell", "web")
		o.shows(t, "31x77 vt220\n")
		if err := pty.Setsize(o.keys, &pty.Winsize{Rows: 40, Cols: 100}); err != nil {
			t.Fatal(err)
		}
		_ = o.Process.Signal(syscall.SIGWINCH) // it has no controlling terminal here
		o.shows(t, "resized 40x100")
		o.types(t, "q")
		o.ends(t, 7)
	})
	t.Run("detach", func(t *testing.T) {
		o := terminal(t, "exec", "-it", "--detach-keys", "ctrl-a,d", "web", "--", "tty")
		o.shows(t, "31x77")
		o.types(t, "x\x01d")
		o.shows(t, "detached; smolvm attach web e1")
		o.ends(t, 0)
		if b, _ := os.ReadFile(o.calls); !contains(b, "keep e1") {
			t.Errorf("the calls were %s", b)
		}
	})
	t.Run("detach from run", func(t *testing.T) {
		o := terminal(t, "run", "-it", "--name", "x9", "--", "tty")
		o.shows(t, "31x77")
		o.types(t, "\x10\x11")
		o.shows(t, "detached; smolvm attach x9 e1")
		o.ends(t, 0)
		if b, _ := os.ReadFile(o.calls); !contains(b, "owner x9 keep") || contains(b, "remove x9 force=true") {
			t.Errorf("the calls were %s", b)
		}
	})
	t.Run("attach", func(t *testing.T) {
		o := terminal(t, "attach", "web")
		o.shows(t, "output")
		time.Sleep(500 * time.Millisecond) // what is typed during the replay is not the command's
		o.types(t, "hello\x03\x10\x11")
		o.shows(t, "hello\x03")
		o.shows(t, "detached; smolvm attach web abc123")
		o.ends(t, 0)
	})
	for _, tt := range []struct {
		name, command string
		signals       int
		code          int
	}{{"SIGTERM", "tty", 1, 143}, {"two signals", "tty-deaf", 2, 143}, {"the VM dies", "tty-dies", 0, 125}, {"panic", "tty-panics", 0, 2}} {
		t.Run(tt.name, func(t *testing.T) {
			o := terminal(t, "exec", "-it", "web", "--", tt.command)
			o.shows(t, "31x77")
			for range tt.signals {
				_ = o.Process.Signal(syscall.SIGTERM)
				time.Sleep(200 * time.Millisecond)
			}
			o.ends(t, tt.code)
		})
	}
}

// tty plays a command on a terminal: it shows its size and what is typed, until a q.
func tty(ctx context.Context, req api.ExecRequest, s lifecycle.ExecIO) (api.ExecResult, error) {
	s.Started(api.ProcessInfo{ExecID: "e1"})
	_, _ = fmt.Fprintf(s.Stdout, "%dx%d %s\n", req.TTY.Rows, req.TTY.Cols, req.TTY.Term)
	name := "tty"
	if len(req.Argv) > 0 {
		name = req.Argv[0]
	}
	switch name {
	case "tty-deaf":
		select {} //nolint:staticcheck // it does not care for ctx
	case "tty-dies":
		return api.ExecResult{}, errdefs.Unavailable.Errorf("the VM web ended: the monitor was killed")
	case "tty-panics":
		panic("on purpose")
	}
	keys := make(chan string)
	go func() {
		var all []byte
		b := make([]byte, 1)
		for len(all) == 0 || all[len(all)-1] != 'q' {
			if _, err := s.Stdin.Read(b); err != nil {
				return
			}
			all = append(all, b[0])
		}
		keys <- string(all)
	}()
	for {
		select {
		case <-ctx.Done():
			return api.ExecResult{}, context.Cause(ctx)
		case size := <-s.Sizes:
			_, _ = fmt.Fprintf(s.Stdout, "resized %dx%d\n", size.Rows, size.Cols)
		case all := <-keys:
			_, _ = fmt.Fprintf(s.Stdout, "%q\n", all)
			return api.ExecResult{ExitCode: 7}, nil
		}
	}
}

// TestPruneAsks: on a terminal it asks, and a no is a no.
func TestPruneAsks(t *testing.T) {
	for answer, removed := range map[string]bool{"y\n": true, "\n": false, "no\n": false} {
		o := terminal(t, "prune")
		o.shows(t, "[y/N] ")
		o.types(t, answer)
		o.ends(t, 0)
		if b, _ := os.ReadFile(o.calls); contains(b, "prune image sha256:0123") != removed {
			t.Errorf("after %q the calls were %s", answer, b)
		}
	}
}
