package agent_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/agent"
	"github.com/smolvm/smolvm/internal/guest/agent/command"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/link"
	"github.com/smolvm/smolvm/internal/guest/proto"
)

// system is a machine of which only the calls are seen.
type system struct {
	configured, resumed, awake, down atomic.Int32
	fail, sleepy                     error
}

func (s *system) Configure(*proto.ConfigureRequest) (int64, *command.Runner, error) {
	s.configured.Add(1)
	return 1 << 33, command.New(), s.fail
}

func (s *system) Resumed(*proto.ResumedRequest) error {
	s.resumed.Add(1)
	return s.fail
}

func (s *system) Awake() error {
	s.awake.Add(1)
	return s.sleepy
}

func (s *system) Shutdown() { s.down.Add(1) }

// guest is an agent in this process, behind the link's frames.
type guest struct {
	*client.Client
	sys  *system
	off  chan struct{}
	dial client.Dialer
	port net.Conn // the host's end of the port, which outlives connections
}

// ends returns a stream socket pair.
func ends(t testing.TB) (host, guest net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var c [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "port")
		if c[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	return c[0], c[1]
}

// stays is a port that a connection's end does not close.
type stays struct{ net.Conn }

func (s stays) Close() error { return s.SetDeadline(time.Unix(1, 0)) }

func start(t testing.TB) *guest {
	t.Helper()
	host, port := ends(t)
	g := &guest{sys: &system{}, off: make(chan struct{}), port: host}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // ends after the clean-up below
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = agent.Serve(ctx, link.Listen(port), agent.Options{
			Build: "test", System: g.sys, PowerOff: func() { close(g.off) },
		})
	}()
	t.Cleanup(func() {
		_ = g.Close()
		cancel()
		_ = host.Close()
		<-served
	})
	g.dial = func(ctx context.Context) (net.Conn, error) {
		if err := host.SetDeadline(time.Time{}); err != nil {
			return nil, err
		}
		return link.Dial(ctx, stays{host})
	}
	g.connect(t)
	return g
}

func (g *guest) connect(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var err error
	if g.Client, err = client.New(ctx, g.dial); err != nil {
		t.Fatal(err)
	}
}

func (g *guest) configure(t testing.TB, c *proto.ConfigureRequest) {
	t.Helper()
	if _, err := g.Configure(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// ready is a configured guest.
func ready(t testing.TB) *guest {
	g := start(t)
	g.configure(t, &proto.ConfigureRequest{Env: map[string]string{"VM": "yes", "OVER": "vm"}})
	return g
}

var execIDs atomic.Int64

func nextID() string { return "e" + strconv.FormatInt(execIDs.Add(1), 10) }

type output struct {
	*proto.ExecExit
	stdout, stderr string
}

func (g *guest) run(t testing.TB, s *proto.ExecStart, stdin io.Reader) output {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s.ExecId, s.Stdin = nextID(), stdin != nil
	var out, errs bytes.Buffer
	exit, err := g.Exec(ctx, s, client.Streams{Stdin: stdin, Stdout: &out, Stderr: &errs})
	if err != nil {
		t.Fatalf("Exec: %v", err)
	}
	return output{exit, out.String(), errs.String()}
}

func sh(script string) *proto.ExecStart { return &proto.ExecStart{Script: script} }

func TestBeforeConfigure(t *testing.T) {
	g := start(t)
	if h := g.Hello(); h.GetBuild() != "test" || h.GetConfigured() || h.GetResumePending() || h.GetUptimeUs() <= 0 {
		t.Errorf("Hello = %v", h)
	}
	if err := g.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
	calls := map[string]func() error{
		"exec": func() error {
			_, err := g.Exec(t.Context(), &proto.ExecStart{Argv: []string{"true"}, ExecId: "x"}, client.Streams{})
			return err
		},
		"stat":  func() error { _, err := g.Stat(t.Context(), "/", false); return err },
		"sync":  func() error { return g.Sync(t.Context()) },
		"read":  func() error { _, err := g.ReadFile(t.Context(), "/etc/passwd", 0, -1); return err },
		"write": func() error { return g.WriteFile(t.Context(), "/x", client.Attr{}, strings.NewReader("x")) },
	}
	for name, call := range calls {
		if err := call(); !errdefs.Is(err, errdefs.WrongState) {
			t.Errorf("%s: %v (%s)", name, err, errdefs.ClassOf(err))
		}
	}
	g.configure(t, &proto.ConfigureRequest{})
	if _, err := g.Configure(t.Context(), &proto.ConfigureRequest{}); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("a second Configure: %v", err)
	}
	if n := g.sys.configured.Load(); n != 1 {
		t.Errorf("the system was configured %d times", n)
	}
}

func TestConfigureFailsForGood(t *testing.T) {
	g := start(t)
	g.sys.fail = errors.New("no disk")
	for range 2 {
		_, err := g.Configure(t.Context(), &proto.ConfigureRequest{})
		if err == nil || !strings.Contains(err.Error(), "no disk") {
			t.Fatalf("Configure: %v", err)
		}
	}
	if n := g.sys.configured.Load(); n != 1 {
		t.Errorf("the system was configured %d times", n)
	}
}

func TestNewEpoch(t *testing.T) {
	g := ready(t)
	h, err := g.Announce(t.Context(), 2)
	if err != nil || !h.GetResumePending() || !h.GetConfigured() {
		t.Fatalf("Announce = %v, %v", h, err)
	}
	if _, err := g.Stat(t.Context(), "/", false); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("stat in a new epoch: %v", err)
	}
	if _, err := g.ReadFile(t.Context(), "/etc/passwd", 0, -1); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("read in a new epoch: %v", err)
	}
	g.sys.fail = errors.New("no seed")
	if err := g.Resumed(t.Context(), &proto.ResumedRequest{Epoch: 2}); err == nil {
		t.Error("Resumed hides a failure")
	}
	if _, err := g.Stat(t.Context(), "/", false); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("stat after a failed Resumed: %v", err)
	}
	if n := g.sys.awake.Load(); n != 0 {
		t.Errorf("commands went on %d times after a failure", n)
	}
	g.sys.fail, g.sys.sleepy = nil, errors.New("no SSH service")
	if err := g.Resumed(t.Context(), &proto.ResumedRequest{Epoch: 2}); err == nil || !strings.Contains(err.Error(), "no SSH service") {
		t.Errorf("Resumed hides what did not begin anew: %v", err)
	}
	if _, err := g.Stat(t.Context(), "/", false); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("stat after a half Resumed: %v", err)
	}
	g.sys.sleepy = nil
	if err := g.Resumed(t.Context(), &proto.ResumedRequest{Epoch: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Stat(t.Context(), "/", false); err != nil {
		t.Errorf("stat after Resumed: %v", err)
	}
	if err := g.Resumed(t.Context(), &proto.ResumedRequest{Epoch: 2}); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("Resumed without an announcement: %v", err)
	}
}

// TestSnapshotEpochs: a guest that was stopped for a snapshot goes on as itself, and its clone, which was stopped with it, as another.
func TestSnapshotEpochs(t *testing.T) {
	g := ready(t)
	if err := g.Quiesce(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := g.Quiesce(t.Context(), 0); err != nil { // it stands still as it is
		t.Errorf("a second time: %v", err)
	}
	if _, err := g.Stat(t.Context(), "/", false); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("stat meanwhile: %v", err)
	}
	_ = g.Close() // no stream outlives a restore
	req := &proto.ResumedRequest{Epoch: 2, Seed: make([]byte, 64)}
	again, err := client.Awaken(t.Context(), g.dial, req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if _, err := again.Stat(t.Context(), "/", false); err != nil {
		t.Error(err)
	}
	if g.sys.resumed.Load() != 1 || g.sys.awake.Load() != 1 {
		t.Errorf("resumed %d times, awake %d times", g.sys.resumed.Load(), g.sys.awake.Load())
	}
	if err := again.Quiesce(t.Context(), 2); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("in an epoch that has begun: %v", err)
	}
	g.sys.fail = errors.New("no clock")
	_ = again.Close()
	if c, err := client.Awaken(t.Context(), g.dial, &proto.ResumedRequest{Epoch: 3}); c != nil || err == nil || !strings.Contains(err.Error(), "no clock") {
		t.Errorf("a guest that did not become another: %v, %v", c, err)
	}
}

// TestAwakenAgain: a restored guest's kernel forgets connections without a word, and hangs up on others.
func TestAwakenAgain(t *testing.T) {
	g := ready(t)
	if err := g.Quiesce(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	_ = g.Close()
	var n int
	dial := func(ctx context.Context) (net.Conn, error) {
		ours, theirs := ends(t)
		switch n++; n {
		case 1:
			t.Cleanup(func() { _ = theirs.Close() })
			return ours, nil
		case 2:
			_ = theirs.Close()
			return ours, nil
		}
		_, _ = ours.Close(), theirs.Close()
		return g.dial(ctx)
	}
	c, err := client.Awaken(t.Context(), dial, &proto.ResumedRequest{Epoch: 2, Seed: make([]byte, 64)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Stat(t.Context(), "/", false); err != nil || n != 3 {
		t.Errorf("after %d connections: %v", n, err)
	}
	// What cannot be reached at all is told at once.
	gone := errdefs.Unavailable.Errorf("the machine has ended")
	if _, err := client.Rejoin(t.Context(), func(context.Context) (net.Conn, error) { return nil, gone }); !errors.Is(err, gone) {
		t.Errorf("a machine that is no more: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := client.Rejoin(ctx, func(context.Context) (net.Conn, error) {
		ours, theirs := ends(t)
		t.Cleanup(func() { _ = theirs.Close() })
		return ours, nil
	}); !errdefs.Is(err, errdefs.Timeout) {
		t.Errorf("a guest that never answers: %v", err)
	}
}

func TestExec(t *testing.T) {
	g := ready(t)
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/does/not/exist\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		start  *proto.ExecStart
		stdin  io.Reader
		code   int32
		signal int32
		stdout string
		stderr string // a part of it, or of the error
	}{
		{name: "argv", start: &proto.ExecStart{Argv: []string{"echo", "a b", "$HOME"}}, stdout: "a b $HOME\n"},
		{name: "script", start: sh("echo out; echo err >&2; exit 7"), code: 7, stdout: "out\n", stderr: "err\n"},
		{name: "signal", start: sh("kill -TERM $$"), code: 143, signal: 15},
		{name: "unknown", start: &proto.ExecStart{Argv: []string{"no-such-command"}}, code: 127, stderr: "command not found"},
		{name: "unknown path", start: &proto.ExecStart{Argv: []string{"/no/such"}}, code: 127, stderr: "no such file"},
		{name: "no interpreter", start: &proto.ExecStart{Argv: []string{script}}, code: 127, stderr: "interpreter"},
		{name: "not executable", start: &proto.ExecStart{Argv: []string{plain}}, code: 126, stderr: "permission denied"},
		{name: "a directory", start: &proto.ExecStart{Argv: []string{dir}}, code: 126, stderr: "permission denied"},
		{name: "stdin", start: &proto.ExecStart{Argv: []string{"cat"}}, stdin: strings.NewReader("a\x00b\xff"), stdout: "a\x00b\xff"},
		{name: "no stdin", start: &proto.ExecStart{Argv: []string{"cat"}}},
		{name: "vm environment", start: sh(`echo "$VM $OVER $PIP_BREAK_SYSTEM_PACKAGES $LANG"`), stdout: "yes vm 1 C.UTF-8\n"},
		{
			name: "own environment", start: &proto.ExecStart{Script: "echo $VM $OVER", Env: map[string]string{"OVER": "own"}},
			stdout: "yes own\n",
		},
		{
			name: "bad environment", start: &proto.ExecStart{Script: "true", Env: map[string]string{"A=B": "c"}},
			code: 126, stderr: "environment",
		},
		{name: "cwd", start: &proto.ExecStart{Script: "pwd", Cwd: "/usr"}, stdout: "/usr\n"},
		{
			name: "missing cwd", start: &proto.ExecStart{Script: "pwd", Cwd: "/no/such"},
			code: 126, stderr: "working directory: stat /no/such: no such file",
		},
		{name: "unknown user", start: &proto.ExecStart{Script: "true", User: "nobody-knows"}, code: 126, stderr: "nobody-knows"},
		{name: "background child", start: sh("sleep 60 & echo started"), stdout: "started\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			begun := time.Now()
			r := g.run(t, tt.start, tt.stdin)
			if r.GetExitCode() != tt.code || r.GetSignal() != tt.signal || r.stdout != tt.stdout {
				t.Errorf("%v, printed %q", r.ExecExit, r.stdout)
			}
			if !strings.Contains(r.stderr+r.GetError(), tt.stderr) {
				t.Errorf("stderr %q, error %q", r.stderr, r.GetError())
			}
			if d := time.Since(begun); d > 10*time.Second {
				t.Errorf("it took %s", d)
			}
		})
	}
}

func TestExecAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	g := ready(t)
	for _, tt := range []struct{ user, want string }{
		{"", "0:0"},
		{"nobody", "65534:65534"},
		{"4711", "4711:4711"},
		{"4711:12", "4711:12"},
	} {
		t.Run("user "+tt.user, func(t *testing.T) {
			r := g.run(t, &proto.ExecStart{Script: "echo $(id -u):$(id -g)", User: tt.user, Cwd: "/"}, nil)
			if r.stdout != tt.want+"\n" {
				t.Errorf("%q, %v", r.stdout, r.ExecExit)
			}
		})
	}
}

func TestExecLongScript(t *testing.T) {
	g := ready(t)
	body := strings.Repeat("0123456789abcde\n", 1<<20-8)
	script := "wc -c <<'END' && cat\n" + body + "END\n"
	r := g.run(t, sh(script), strings.NewReader("input"))
	if r.GetExitCode() != 0 || r.stdout != fmt.Sprintf("%d\ninput", len(body)) {
		t.Errorf("%v, %q, %q", r.ExecExit, r.stdout, r.stderr)
	}
	_, err := g.Exec(t.Context(), &proto.ExecStart{Script: strings.Repeat("#", proto.MaxScript+1), ExecId: "x"}, client.Streams{})
	if !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("a script that is too long: %v", err)
	}
}

func TestExecTimeout(t *testing.T) {
	g := ready(t)
	begun := time.Now()
	r := g.run(t, &proto.ExecStart{Script: "echo before; sleep 60; echo after", TimeoutMs: 300}, nil)
	if !r.GetTimedOut() || r.GetExitCode() != 124 || r.stdout != "before\n" || time.Since(begun) > 10*time.Second {
		t.Errorf("%v, %q after %s", r.ExecExit, r.stdout, time.Since(begun))
	}
}

func TestExecMuchOutput(t *testing.T) {
	g := ready(t)
	const n = 20 << 20
	r := g.run(t, sh("head -c "+strconv.Itoa(n)+" /dev/zero; head -c 100000 /dev/zero >&2"), nil)
	if len(r.stdout) != n || len(r.stderr) != 100000 {
		t.Errorf("%d and %d bytes came", len(r.stdout), len(r.stderr))
	}
}

func TestExecNoisyBackground(t *testing.T) {
	g := ready(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	r := g.run(t, sh("yes & echo $! > "+pidFile), nil)
	if r.GetExitCode() != 0 {
		t.Fatal(r.ExecExit)
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(pid)))
	t.Cleanup(func() { _ = syscall.Kill(n, syscall.SIGKILL) })
	time.Sleep(200 * time.Millisecond)
	if err := syscall.Kill(n, 0); err != nil {
		t.Errorf("the background process is gone: %v", err)
	}
}

func TestExecSignal(t *testing.T) {
	g := ready(t)
	id := nextID()
	started, sent := make(chan int, 1), make(chan struct{})
	go func() {
		defer close(sent)
		<-started
		time.Sleep(100 * time.Millisecond)
		if err := g.Signal(t.Context(), id, syscall.SIGINT, false); err != nil {
			t.Error(err)
		}
	}()
	exit, err := g.Exec(t.Context(), &proto.ExecStart{Argv: []string{"sh", "-c", "sleep 60"}, ExecId: id},
		client.Streams{Started: func(pid int) { started <- pid }})
	if err != nil || exit.GetExitCode() != 130 || exit.GetSignal() != 2 {
		t.Errorf("%v, %v", exit, err)
	}
	<-sent
	if err := g.Signal(t.Context(), id, syscall.SIGINT, false); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("signal to what has ended: %v", err)
	}
}

func TestExecDisconnect(t *testing.T) {
	for _, kill := range []bool{true, false} {
		t.Run(fmt.Sprintf("kill %v", kill), func(t *testing.T) {
			g := ready(t)
			ctx, cancel := context.WithCancel(t.Context())
			pids := make(chan int, 1)
			go func() {
				pid := <-pids
				pids <- pid
				cancel()
			}()
			_, err := g.Exec(ctx, &proto.ExecStart{Argv: []string{"sleep", "60"}, ExecId: "d", OnDisconnectKill: kill},
				client.Streams{Started: func(pid int) { pids <- pid }})
			if !errdefs.Is(err, errdefs.Unavailable) {
				t.Errorf("Exec: %v", err)
			}
			pid := <-pids
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
			if alive := stillThere(pid, 2*time.Second, kill); alive == kill {
				t.Errorf("alive: %v", alive)
			}
		})
	}
}

// stillThere waits for the process's end where one is expected.
func stillThere(pid int, patience time.Duration, expectEnd bool) bool {
	if !expectEnd {
		patience = 300 * time.Millisecond
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if syscall.Kill(pid, 0) != nil {
			return false
		}
	}
	return true
}

func TestFailingReaderAndWriter(t *testing.T) {
	g := ready(t)
	_, err := g.Exec(t.Context(), &proto.ExecStart{Argv: []string{"yes"}, ExecId: nextID(), OnDisconnectKill: true},
		client.Streams{Stdout: failing{}})
	if !errdefs.Is(err, errdefs.Unavailable) || !errors.Is(err, errBroken) {
		t.Errorf("with a broken writer: %v", err)
	}
	path := filepath.Join(t.TempDir(), "f")
	err = g.WriteFile(t.Context(), path, client.Attr{}, io.MultiReader(strings.NewReader("half"), failing{}))
	if !errors.Is(err, errBroken) {
		t.Errorf("with a broken reader: %v", err)
	}
	time.Sleep(100 * time.Millisecond)
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

var errBroken = errors.New("broken")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errBroken }
func (failing) Read([]byte) (int, error)  { return 0, errBroken }

func TestFiles(t *testing.T) {
	g := ready(t)
	ctx, dir := t.Context(), t.TempDir()
	data := make([]byte, 5<<20)
	_, _ = rand.Read(data)
	path := filepath.Join(dir, "file")
	if err := g.WriteFile(ctx, path, client.Attr{}, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	read := func(offset, length int64) []byte {
		t.Helper()
		r, err := g.ReadFile(ctx, path, offset, length)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if !bytes.Equal(read(0, -1), data) || !bytes.Equal(read(1000, 50), data[1000:1050]) || len(read(0, 0)) != 0 {
		t.Error("what was read is not what was written")
	}
	mode := uint32(0o4750)
	if err := g.WriteFile(ctx, path, client.Attr{Mode: &mode}, strings.NewReader("new")); err != nil {
		t.Fatal(err)
	}
	st, err := g.Stat(ctx, path, false)
	if err != nil || st.GetMode() != mode || st.GetSize() != 3 || st.GetType() != "file" || st.GetName() != "file" {
		t.Errorf("Stat = %v, %v", st, err)
	}
	sub := filepath.Join(dir, "a/b")
	if err := g.Mkdir(ctx, sub, 0o711, false); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("Mkdir without parents: %v", err)
	}
	for range 2 {
		if err := g.Mkdir(ctx, sub, 0o711, true); err != nil {
			t.Errorf("Mkdir: %v", err)
		}
	}
	if err := g.Rename(ctx, path, filepath.Join(sub, "moved")); err != nil {
		t.Error(err)
	}
	if err := g.Chmod(ctx, filepath.Join(sub, "moved"), 0o600); err != nil {
		t.Error(err)
	}
	list, err := g.List(ctx, sub)
	if err != nil || len(list) != 1 || list[0].GetName() != "moved" || list[0].GetMode() != 0o600 {
		t.Errorf("List = %v, %v", list, err)
	}
	if err := g.Remove(ctx, filepath.Join(dir, "a"), false); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("Remove of a full directory: %v", err)
	}
	if err := g.Remove(ctx, filepath.Join(dir, "a"), true); err != nil {
		t.Error(err)
	}
	if err := g.Remove(ctx, filepath.Join(dir, "a"), true); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("Remove of nothing: %v", err)
	}
}

func TestFileErrors(t *testing.T) {
	g := ready(t)
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(path string) error {
		r, err := g.ReadFile(t.Context(), path, 0, -1)
		if err == nil {
			_ = r.Close()
		}
		return err
	}
	for _, tt := range []struct {
		name string
		err  error
		want errdefs.Class
	}{
		{"read nothing", read(filepath.Join(dir, "none")), errdefs.NotFound},
		{"read a directory", read(dir), errdefs.Invalid},
		{"read a fifo", read(filepath.Join(dir, "fifo")), errdefs.Invalid},
		{"relative", read("file"), errdefs.Invalid},
		{"long", read("/" + strings.Repeat("x", proto.MaxPath)), errdefs.Invalid},
		{"write a directory", g.WriteFile(t.Context(), dir, client.Attr{}, strings.NewReader("x")), errdefs.Invalid},
		{
			"write below nothing",
			g.WriteFile(t.Context(), filepath.Join(dir, "a/b"), client.Attr{}, strings.NewReader("x")), errdefs.NotFound,
		},
	} {
		if !errdefs.Is(tt.err, tt.want) {
			t.Errorf("%s: %v (%s), want %s", tt.name, tt.err, errdefs.ClassOf(tt.err), tt.want)
		}
	}
}

func TestListPages(t *testing.T) {
	g := ready(t)
	dir := t.TempDir()
	const n = 2500
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%05d", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := g.List(t.Context(), dir)
	if err != nil || len(list) != n || list[n-1].GetName() != fmt.Sprintf("f%05d", n-1) {
		t.Fatalf("%d entries, %v", len(list), err)
	}
}

func TestTar(t *testing.T) {
	g := ready(t)
	src, dst := filepath.Join(t.TempDir(), "tree"), t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(src, "d"), 0o755),
		os.WriteFile(filepath.Join(src, "d/a"), []byte("content"), 0o640),
		os.Link(filepath.Join(src, "d/a"), filepath.Join(src, "d/b")),
		os.Symlink("/nowhere", filepath.Join(src, "l")),
		os.Chmod(filepath.Join(src, "d"), 0o2750),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	out, err := g.TarOut(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.TarIn(t.Context(), filepath.Join(dst, "new"), bytes.NewReader(archive)); err != nil {
		t.Fatal(err)
	}
	top := filepath.Join(dst, "new/tree")
	a, err := os.Stat(filepath.Join(top, "d/a"))
	if err != nil || a.Mode() != 0o640 {
		t.Fatalf("%v, %v", a, err)
	}
	b, err := os.Stat(filepath.Join(top, "d/b"))
	if err != nil || !os.SameFile(a, b) {
		t.Error("the hard link is not one any more")
	}
	if l, err := os.Readlink(filepath.Join(top, "l")); l != "/nowhere" {
		t.Errorf("symlink %q, %v", l, err)
	}
	if content, err := os.ReadFile(filepath.Join(top, "d/b")); string(content) != "content" {
		t.Errorf("%q, %v", content, err)
	}
}

func TestTarInStaysInside(t *testing.T) {
	g := ready(t)
	for _, tt := range []struct {
		name    string
		headers []tar.Header
	}{
		{"dots", []tar.Header{{Name: "../evil", Typeflag: tar.TypeReg}}},
		{"through a symlink", []tar.Header{
			{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "l/evil", Typeflag: tar.TypeReg},
		}},
		{"hard link", []tar.Header{{Name: "evil", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			in := filepath.Join(dir, "in")
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range tt.headers {
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			_ = w.Close()
			if err := g.TarIn(t.Context(), in, &b); err == nil {
				t.Error("it was unpacked")
			}
			if _, err := os.Lstat(filepath.Join(dir, "evil")); err == nil {
				t.Error("it escaped")
			}
		})
	}
}

func TestLinkLost(t *testing.T) {
	g := ready(t)
	first := g.Client
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	<-first.Gone()
	if err := first.Ping(t.Context()); !errdefs.Is(err, errdefs.Unavailable) {
		t.Errorf("Ping on a lost link: %v", err)
	}
	g.connect(t)
	if h := g.Hello(); !h.GetConfigured() {
		t.Errorf("the agent forgot: %v", h)
	}
	if r := g.run(t, sh("echo again"), nil); r.stdout != "again\n" {
		t.Errorf("%v", r)
	}
}

func TestShutdown(t *testing.T) {
	g := ready(t)
	pids := make(chan int, 1)
	ended := make(chan *proto.ExecExit, 1)
	go func() {
		exit, _ := g.Exec(t.Context(), &proto.ExecStart{Argv: []string{"sleep", "60"}, ExecId: "s"},
			client.Streams{Started: func(pid int) { pids <- pid }})
		ended <- exit
	}()
	<-pids
	if err := g.Shutdown(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if exit := <-ended; exit.GetSignal() != 9 {
		t.Errorf("the command ended with %v", exit)
	}
	select {
	case <-g.off:
	case <-time.After(5 * time.Second):
		t.Error("the machine was not switched off")
	}
	if g.sys.down.Load() != 1 {
		t.Error("the file systems were not written back")
	}
}

func TestMetrics(t *testing.T) {
	g := ready(t)
	m, err := g.Metrics(t.Context())
	if err != nil || m.GetMemoryTotal() == 0 || m.GetDiskTotal() == 0 || m.GetAgentRss() == 0 || m.GetUptimeMs() == 0 {
		t.Errorf("%v, %v", m, err)
	}
}

func BenchmarkPing(b *testing.B) {
	g := ready(b)
	for b.Loop() {
		if err := g.Ping(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteFile(b *testing.B) {
	g := ready(b)
	path := filepath.Join(b.TempDir(), "f")
	data := make([]byte, 64<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := g.WriteFile(b.Context(), path, client.Attr{}, bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
}
