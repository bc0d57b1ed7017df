package agent_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/proto"
)

// screen is what a terminal shows, as it grows.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	seen chan struct{}
}

func newScreen() *screen { return &screen{seen: make(chan struct{}, 1)} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	select {
	case s.seen <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// shows waits for a text.
func (s *screen) shows(t *testing.T, want string) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for !strings.Contains(s.String(), want) {
		select {
		case <-s.seen:
		case <-limit:
			t.Fatalf("no %q on\n%s", want, s)
		}
	}
}

// session is a command on a terminal.
type session struct {
	*screen
	id   string
	in   *io.PipeWriter
	exit chan *proto.ExecExit
}

func (g *guest) terminal(t *testing.T, s *proto.ExecStart) *session {
	t.Helper()
	r, w := io.Pipe()
	c := &session{screen: newScreen(), id: nextID(), in: w, exit: make(chan *proto.ExecExit, 1)}
	s.ExecId, s.Stdin = c.id, true
	if s.Terminal == nil {
		s.Terminal = &proto.Terminal{Rows: 33, Cols: 99, Term: "xterm"}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(func() {
		cancel()
		_ = w.Close()
	})
	go func() {
		exit, err := g.Exec(ctx, s, client.Streams{Stdin: r, Stdout: c.screen})
		if err != nil {
			t.Errorf("Exec: %v", err)
		}
		c.exit <- exit
	}()
	return c
}

func (c *session) types(t *testing.T, keys string) {
	t.Helper()
	if _, err := io.WriteString(c.in, keys); err != nil {
		t.Fatal(err)
	}
}

func TestTerminal(t *testing.T) {
	g := ready(t)
	c := g.terminal(t, sh(`tty; stty size; echo "TERM=$TERM"; ps -o tpgid=,pgid= -p $$ | awk '{print "fg", ($1 == $2)}'
		trap 'stty size; echo resized' WINCH; trap 'echo int' INT; trap 'echo quit' QUIT
		read a; echo "read $a"; while ! [ -e `+t.TempDir()+`/never ]; do read b && { echo "then $b"; [ "$b" = end ] && break; }; done; echo err >&2; exit 7`))
	c.shows(t, "/dev/pts/")
	c.shows(t, "33 99\r\n")
	c.shows(t, "TERM=xterm\r\n")
	c.shows(t, "fg 1\r\n")
	c.types(t, "hello\n")
	c.shows(t, "read hello\r\n")
	if err := g.Resize(t.Context(), c.id, 50, 120); err != nil {
		t.Fatal(err)
	}
	c.shows(t, "50 120\r\n")
	c.types(t, "\x03")
	c.shows(t, "int\r\n")
	c.types(t, "\x1c")
	c.shows(t, "quit\r\n")
	c.types(t, "end\n")
	if exit := <-c.exit; exit.GetExitCode() != 7 {
		t.Errorf("%v", exit)
	}
	c.shows(t, "err\r\n")
	if err := g.Resize(t.Context(), c.id, 50, 120); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("resize of what has ended: %v", err)
	}
	if err := g.Resize(t.Context(), c.id, 0, 1<<20); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("a size that none is: %v", err)
	}
}

// TestTerminalJobs: a shell on its own terminal stops and continues jobs, and the end of one is not the end of the shell.
func TestTerminalJobs(t *testing.T) {
	g := ready(t)
	c := g.terminal(t, &proto.ExecStart{Argv: []string{"bash", "--norc", "--noprofile", "-i"}, Env: map[string]string{"PS1": "$ ", "PATH": "/usr/bin:/bin"}})
	c.shows(t, "$ ")
	c.types(t, "sleep 91\n")
	time.Sleep(300 * time.Millisecond)
	c.types(t, "\x1a")
	c.shows(t, "Stopped")
	c.types(t, "fg\n")
	time.Sleep(300 * time.Millisecond)
	c.types(t, "\x03")
	c.types(t, "echo $((6*7)) code=$?\n")
	c.shows(t, "42 code=130")
	c.types(t, "exit 9\n")
	if exit := <-c.exit; exit.GetExitCode() != 9 {
		t.Errorf("%v", exit)
	}
}

// TestTerminalTail: what a command prints just before its end is there, all of it.
func TestTerminalTail(t *testing.T) {
	g := ready(t)
	for range 20 {
		c := g.terminal(t, sh("stty -opost; seq 20000"))
		<-c.exit
		if got := c.String(); !strings.HasSuffix(got, "\n20000\n") || strings.Count(got, "\n") != 20000 {
			t.Fatalf("%d lines, at the end %q", strings.Count(got, "\n"), got[max(0, len(got)-20):])
		}
	}
}

// TestTerminalBackground: what holds the terminal in the background does not hold the call.
func TestTerminalBackground(t *testing.T) {
	g := ready(t)
	c := g.terminal(t, sh("trap '' HUP; sleep 3 & echo begun"))
	select {
	case <-c.exit:
	case <-time.After(2500 * time.Millisecond):
		t.Error("it waits for a background process")
	}
	c.shows(t, "begun")
}

func TestShell(t *testing.T) {
	g := ready(t)
	c := g.terminal(t, &proto.ExecStart{Shell: true, Terminal: &proto.Terminal{Rows: 24, Cols: 80, Term: "no/such"}})
	c.types(t, "echo \"0=$0 T=$TERM\"; exit 3\n")
	if exit := <-c.exit; exit.GetExitCode() != 3 {
		t.Errorf("%v", exit)
	}
	c.shows(t, "0=-")
	c.shows(t, "T=xterm-256color")
}

// detached starts a command that goes on by itself.
func (g *guest) detached(t *testing.T, s *proto.ExecStart) string {
	t.Helper()
	s.ExecId = nextID()
	pid, failed, err := g.Start(t.Context(), s)
	if err != nil || failed != nil || pid <= 0 {
		t.Fatalf("Start: %d, %v, %v", pid, failed, err)
	}
	return s.GetExecId()
}

type attached struct {
	stdout, stderr screen
	gone           uint64
	began          *proto.Process
}

func (a *attached) to(stdin io.Reader) client.Attachment {
	a.stdout.seen, a.stderr.seen = make(chan struct{}, 1), make(chan struct{}, 1)
	return client.Attachment{
		Stdin: stdin, Stdout: &a.stdout, Stderr: &a.stderr,
		Began: func(p *proto.Process) error { a.began = p; return nil },
		Gap:   func(n uint64) error { a.gone += n; return nil },
	}
}

func TestAttach(t *testing.T) {
	g := ready(t)
	id := g.detached(t, &proto.ExecStart{Script: "echo out; sleep 0.2; echo err >&2; read x; echo got $x; exit 5", Stdin: true})
	var first attached
	for first.stdout.String() == "" || first.stderr.String() == "" {
		first = attached{}
		exit, err := g.Attach(t.Context(), &proto.AttachStart{ExecId: id, NoFollow: true}, first.to(nil))
		if err != nil || exit != nil {
			t.Fatalf("%v, %v", exit, err)
		}
	}
	if first.stdout.String() != "out\n" || first.stderr.String() != "err\n" || first.began.GetExecId() != id || !first.began.GetDetached() {
		t.Errorf("%q, %q, %v", first.stdout.String(), first.stderr.String(), first.began)
	}
	var wait sync.WaitGroup
	for range 3 { // readers, each by the beginning of its id
		wait.Go(func() {
			var a attached
			exit, err := g.Attach(t.Context(), &proto.AttachStart{ExecId: id, Offset: 2}, a.to(nil))
			if err != nil || exit.GetExitCode() != 5 || a.stdout.String() != "t\ngot it\n" || a.stderr.String() != "err\n" || a.gone != 0 {
				t.Errorf("%v, %v, %q, %q, %d", exit, err, a.stdout.String(), a.stderr.String(), a.gone)
			}
		})
	}
	var a attached
	if exit, err := g.Attach(t.Context(), &proto.AttachStart{ExecId: id, Offset: 8, Stdin: true}, a.to(strings.NewReader("it\n"))); err != nil ||
		exit.GetExitCode() != 5 || a.stdout.String() != "got it\n" {
		t.Errorf("with input: %v, %v, %q", exit, err, a.stdout.String())
	}
	wait.Wait()
	if exit, err := g.Wait(t.Context(), id); err != nil || exit.GetExitCode() != 5 {
		t.Errorf("Wait: %v, %v", exit, err)
	}
	if _, err := g.Attach(t.Context(), &proto.AttachStart{ExecId: id, Offset: 99}, a.to(nil)); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("beyond the end: %v", err)
	}
	if _, err := g.Attach(t.Context(), &proto.AttachStart{ExecId: "nobody"}, a.to(nil)); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("nobody: %v", err)
	}
	if err := g.Signal(t.Context(), id, syscall.SIGTERM, false); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("a signal to what has ended: %v", err)
	}
}

// stuck is a reader that never reads.
type stuck struct{ until <-chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	<-s.until
	return len(p), nil
}

// TestSlowReader: one that does not read holds up neither the command nor another reader, and is told what it missed.
func TestSlowReader(t *testing.T) {
	g := ready(t)
	const size = 16 << 20
	id := g.detached(t, &proto.ExecStart{Script: "read go; head -c 16777216 /dev/zero; echo end", Stdin: true})
	until := make(chan struct{})
	var slow attached
	slowly := slow.to(nil)
	var seen uint64
	slowly.Stdout = io.MultiWriter(stuck{until}, countWriter{&seen})
	begun, over := make(chan struct{}), make(chan struct{})
	slowly.Began = func(*proto.Process) error { close(begun); return nil }
	go func() {
		defer close(over)
		if exit, err := g.Attach(t.Context(), &proto.AttachStart{ExecId: id}, slowly); err != nil || exit.GetExitCode() != 0 {
			t.Errorf("the slow reader: %v, %v", exit, err)
		}
	}()
	<-begun
	var quick attached
	if exit, err := g.Attach(t.Context(), &proto.AttachStart{ExecId: id, Stdin: true}, quick.to(strings.NewReader("\n"))); err != nil || exit.GetExitCode() != 0 {
		t.Errorf("the quick reader: %v, %v", exit, err)
	}
	if got := quick.stdout.String(); !strings.HasSuffix(got, "\x00end\n") || uint64(len(got))+quick.gone != size+4 {
		t.Errorf("the quick reader got %d bytes, %d were gone", len(got), quick.gone)
	}
	close(until)
	<-over
	if slow.gone == 0 || seen+slow.gone != size+4 {
		t.Errorf("the slow reader got %d bytes, %d were gone", seen, slow.gone)
	}
	p, err := g.Process(t.Context(), id)
	if err != nil || p.GetOutputBytes() != size+4 || p.GetOutputFrom() != size+4-1<<20 || p.GetExit() == nil || p.GetEndedNs() < p.GetStartedNs() {
		t.Errorf("%v, %v", p, err)
	}
}

type countWriter struct{ n *uint64 }

func (c countWriter) Write(p []byte) (int, error) {
	*c.n += uint64(len(p))
	return len(p), nil
}

func TestProcesses(t *testing.T) {
	g := ready(t)
	id := g.detached(t, &proto.ExecStart{Argv: []string{"sh", "-c", "sleep 92", strings.Repeat("é", 300)}})
	main := g.detached(t, &proto.ExecStart{Script: "sleep 93", Main: true})
	for range 40 {
		g.run(t, sh("true"), nil)
	}
	all, err := g.Processes(t.Context())
	if err != nil || len(all) != 2+16 {
		t.Fatalf("%d processes, %v", len(all), err)
	}
	if p := all[0]; p.GetExecId() != id || len(p.GetCommand()) > proto.MaxCommand || !strings.HasPrefix(p.GetCommand(), "sh -c sleep 92 é") || p.GetUser() != "root" || p.GetExit() != nil {
		t.Errorf("%v", p)
	}
	if p, err := g.Process(t.Context(), ""); err != nil || p.GetExecId() != main {
		t.Errorf("without a name: %v, %v", p, err)
	}
	if err := g.Signal(t.Context(), "", syscall.SIGKILL, true); err != nil {
		t.Error(err)
	}
	if exit, err := g.Wait(t.Context(), main); err != nil || exit.GetExitCode() != 137 {
		t.Errorf("%v, %v", exit, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := g.Wait(ctx, id); !errdefs.Is(err, errdefs.Timeout) {
		t.Errorf("a wait that is given up: %v", err)
	}
	if err := g.Signal(t.Context(), id, syscall.SIGKILL, true); err != nil {
		t.Error(err)
	}
	if _, failed, err := g.Start(t.Context(), &proto.ExecStart{Argv: []string{"no-such"}, ExecId: nextID()}); err != nil || failed.GetExitCode() != 127 {
		t.Errorf("%v, %v", failed, err)
	}
}

// TestKeep: a caller that lets go of its command may leave.
func TestKeep(t *testing.T) {
	g := ready(t)
	id := nextID()
	ctx, cancel := context.WithCancel(t.Context())
	_, err := g.Exec(ctx, &proto.ExecStart{Script: "sleep 0.5; echo done", ExecId: id, OnDisconnectKill: true}, client.Streams{Started: func(int) {
		if err := g.Keep(t.Context(), id); err != nil {
			t.Error(err)
		}
		cancel()
	}})
	if err == nil {
		t.Error("it did not leave")
	}
	var a attached
	if exit, err := g.Attach(t.Context(), &proto.AttachStart{ExecId: id}, a.to(nil)); err != nil || exit.GetExitCode() != 0 || a.stdout.String() != "done\n" {
		t.Errorf("%v, %v, %q", exit, err, a.stdout.String())
	}
}
