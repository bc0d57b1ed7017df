package lifecycle

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/sys/pidfd"
)

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// engineHandle is an engine's handle on a process; with later, on one that had its number before.
func engineHandle(t *testing.T, pid int, later uint64) []byte {
	t.Helper()
	ticks, err := pidfd.StartTicks(pid)
	if err != nil && later != 0 {
		t.Fatal(err)
	}
	return marshal(t, engine.Handle{Version: 1, Engine: "fake", PID: pid, StartTicks: ticks + later})
}

// TestGuest: commands and files, through the supervisor.
func TestGuest(t *testing.T) {
	m := rig(t, "")
	started(t, m, "g")
	g, err := m.Connect(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	for name, f := range map[string]func(*testing.T, Guest){
		"streams": guestStreams, "stdin": guestStdin, "signal": guestSignal, "cancel": guestCancel, "not found": guestNotFound,
		"long script": guestScript, "files": guestFiles, "at once": guestAtOnce, "stalled input": guestStalled,
	} {
		t.Run(name, func(t *testing.T) { f(t, g) })
	}
	t.Run("disconnect", func(t *testing.T) { guestDisconnect(t, m, g) })
	t.Run("detached", func(t *testing.T) { guestDetached(t, m, g) })
	t.Run("follow", func(t *testing.T) { guestFollow(t, m, g) })
}

func guestStreams(t *testing.T, g Guest) {
	var out, errs bytes.Buffer
	var info api.ProcessInfo
	res, err := g.Exec(t.Context(), api.ExecRequest{Script: "echo out; echo err >&2; exit 7", Env: map[string]string{"A": "b"}},
		ExecIO{Stdout: &out, Stderr: &errs, Started: func(p api.ProcessInfo) { info = p }})
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != "out\n" || errs.String() != "err\n" || res.ExitCode != 7 || info.PID <= 0 || info.ExecID == "" {
		t.Errorf("out %q, err %q, %+v, %+v", out.String(), errs.String(), res, info)
	}
}

func guestStdin(t *testing.T, g Guest) {
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	var out bytes.Buffer
	res, err := g.Exec(t.Context(), api.ExecRequest{Argv: []string{"cat"}, Stdin: true}, ExecIO{Stdin: bytes.NewReader(data), Stdout: &out})
	if err != nil || res.ExitCode != 0 || !bytes.Equal(out.Bytes(), data) {
		t.Errorf("%+v, %v, %d bytes came back", res, err, out.Len())
	}
	// A command that does not read all of it, and an input that never ends.
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	res, err = g.Exec(t.Context(), api.ExecRequest{Argv: []string{"true"}, Stdin: true}, ExecIO{Stdin: r})
	if err != nil || res.ExitCode != 0 {
		t.Errorf("with an open input: %+v, %v", res, err)
	}
	_, err = g.Exec(t.Context(), api.ExecRequest{Argv: []string{"cat"}, Stdin: true}, ExecIO{Stdin: io.MultiReader(strings.NewReader("x"), badReader{})})
	if err == nil || !strings.Contains(err.Error(), "bad reader") {
		t.Errorf("with an input that fails: %v", err)
	}
}

type badReader struct{}

func (badReader) Read([]byte) (int, error) { return 0, errdefs.Host.Errorf("bad reader") }

func guestSignal(t *testing.T, g Guest) {
	signals := make(chan os.Signal, 1)
	up := &notice{want: "up", ch: make(chan struct{})}
	go func() {
		<-up.ch
		signals <- syscall.SIGTERM
	}()
	res, err := g.Exec(t.Context(), api.ExecRequest{Script: "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"}, ExecIO{Stdout: up, Signals: signals})
	if err != nil || res.ExitCode != 9 {
		t.Errorf("%+v, %v", res, err)
	}
	res, err = g.Exec(t.Context(), api.ExecRequest{Script: "kill -KILL $$"}, ExecIO{})
	if err != nil || res.ExitCode != 137 || res.Signal != "SIGKILL" {
		t.Errorf("%+v, %v", res, err)
	}
}

// guestStalled: input that a command does not read holds up nothing else, its own signals least of all.
func guestStalled(t *testing.T, g Guest) {
	signals := make(chan os.Signal, 1)
	up := &notice{want: "up", ch: make(chan struct{})}
	go func() {
		<-up.ch
		time.Sleep(200 * time.Millisecond) // the input has filled what there is between us
		if res, err := g.Exec(t.Context(), api.ExecRequest{Argv: []string{"true"}}, ExecIO{}); err != nil || res.ExitCode != 0 {
			t.Errorf("another command meanwhile: %+v, %v", res, err)
		}
		signals <- syscall.SIGTERM
	}()
	req := api.ExecRequest{Script: "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done", Stdin: true}
	res, err := g.Exec(t.Context(), req, ExecIO{Stdin: endless{}, Stdout: up, Signals: signals})
	if err != nil || res.ExitCode != 9 {
		t.Errorf("%+v, %v", res, err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// notice is a writer that tells when it has seen a text.
type notice struct {
	want string
	ch   chan struct{}
	mu   sync.Mutex
	got  string
	once sync.Once
}

func (n *notice) Write(p []byte) (int, error) {
	n.mu.Lock()
	n.got += string(p)
	if strings.Contains(n.got, n.want) {
		n.once.Do(func() { close(n.ch) })
	}
	n.mu.Unlock()
	return len(p), nil
}

func guestCancel(t *testing.T, g Guest) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	up := &notice{want: "up", ch: make(chan struct{})}
	go func() {
		<-up.ch
		cancel()
	}()
	_, err := g.Exec(ctx, api.ExecRequest{Script: "echo $$ >" + dir + "/pid; echo up; exec sleep 61"}, ExecIO{Stdout: up})
	if err == nil {
		t.Error("no error of a cancelled command")
	}
	eventually(t, 5*time.Second, "the command killed", func() bool { return !alive(pidIn(t, dir+"/pid")) })
}

func pidIn(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if err := json.Unmarshal(bytes.TrimSpace(b), &pid); err != nil || pid < 2 {
		t.Fatalf("pid %q: %v", b, err)
	}
	return pid
}

func guestNotFound(t *testing.T, g Guest) {
	res, err := g.Exec(t.Context(), api.ExecRequest{Argv: []string{"no-such-command"}}, ExecIO{})
	if err != nil || res.ExitCode != 127 || !strings.Contains(res.Error, "no-such-command") {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := g.StartDetached(t.Context(), api.ExecRequest{Argv: []string{"no-such-command"}}); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("detached: %v", err)
	}
}

func guestScript(t *testing.T, g Guest) {
	var out bytes.Buffer
	script := "wc -c <<'END'\n" + strings.Repeat("0123456789abcde\n", 1<<16) + "END\n"
	res, err := g.Exec(t.Context(), api.ExecRequest{Script: script}, ExecIO{Stdout: &out})
	if err != nil || strings.TrimSpace(out.String()) != "1048576" {
		t.Errorf("%q, %+v, %v", out.String(), res, err)
	}
}

func guestFiles(t *testing.T, g Guest) {
	ctx := t.Context()
	dir, err := os.MkdirTemp("", "files") //nolint:usetesting // the guest learns of a failed write when the test has gone on
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually(t, 10*time.Second, "its files are gone", func() bool { return os.RemoveAll(dir) == nil })
	})
	data := make([]byte, 2<<20)
	_, _ = rand.Read(data)
	if err := g.WriteFile(ctx, dir+"/f", 0o750|os.ModeSetgid, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	info, err := g.Stat(ctx, dir+"/f", false)
	if err != nil || info.Size != int64(len(data)) || info.Mode != 0o2750 || info.Type != "file" || info.Path != dir+"/f" {
		t.Errorf("%+v, %v", info, err)
	}
	r, err := g.ReadFile(ctx, dir+"/f", 1, -1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	_ = r.Close()
	if err != nil || !bytes.Equal(got, data[1:]) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	if _, err := g.ReadFile(ctx, dir+"/absent", 0, -1); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("an absent file: %v", err)
	}
	for _, err := range []error{
		g.Mkdir(ctx, dir+"/a/b", 0o755, true), g.Rename(ctx, dir+"/f", dir+"/a/f"), g.Chmod(ctx, dir+"/a/f", 0o600), g.Sync(ctx),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	tarball, err := g.TarOut(ctx, dir+"/a")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.TarIn(ctx, dir+"/copy", tarball); err != nil {
		t.Error(err)
	}
	_ = tarball.Close()
	list, err := g.List(ctx, dir+"/copy/a")
	if err != nil || len(list) != 2 || list[0].Name != "b" || list[1].Path != dir+"/copy/a/f" || list[1].Mode != 0o600 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := g.Remove(ctx, dir+"/copy", true); err != nil {
		t.Error(err)
	}
	if metrics, err := g.Metrics(ctx); err != nil || metrics.MemoryTotal == 0 {
		t.Errorf("%+v, %v", metrics, err)
	}
	if err := g.WriteFile(ctx, dir+"/g", 0, badReader{}); err == nil || !strings.Contains(err.Error(), "bad reader") {
		t.Errorf("a source that fails: %v", err)
	}
	if _, err := os.Lstat(dir + "/g"); err == nil {
		t.Error("half a file was written")
	}
}

func guestAtOnce(t *testing.T, g Guest) {
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			res, err := g.Exec(t.Context(), api.ExecRequest{Argv: []string{"true"}}, ExecIO{})
			if err != nil || res.ExitCode != 0 {
				t.Errorf("%+v, %v", res, err)
			}
		})
	}
	all.Wait()
}

// guestDisconnect: what becomes of a command whose client goes away.
func guestDisconnect(t *testing.T, m *Manager, _ Guest) {
	for rule, lives := range map[api.OnDisconnect]bool{api.DisconnectKill: false, api.DisconnectKeep: true} {
		t.Run(string(rule), func(t *testing.T) {
			dir := t.TempDir()
			g, err := m.Connect(t.Context(), "g")
			if err != nil {
				t.Fatal(err)
			}
			up := &notice{want: "up", ch: make(chan struct{})}
			done := make(chan error, 1)
			go func() {
				_, err := g.Exec(t.Context(), api.ExecRequest{Script: "echo $$ >" + dir + "/pid; echo up; sleep 0.5; echo more; exec sleep 62", OnDisconnect: rule}, ExecIO{Stdout: up})
				done <- err
			}()
			<-up.ch
			_ = g.Close()
			if err := <-done; !errdefs.Is(err, errdefs.Unavailable) {
				t.Errorf("the client's error: %v", err)
			}
			pid := pidIn(t, dir+"/pid")
			if !lives {
				eventually(t, 5*time.Second, "the command killed", func() bool { return !alive(pid) })
				return
			}
			time.Sleep(time.Second)
			if !alive(pid) {
				t.Error("the command did not live on")
			}
			_ = syscall.Kill(pid, syscall.SIGKILL)
		})
	}
}

// guestDetached: the command of run -d; its output is in the log.
func guestDetached(t *testing.T, m *Manager, g Guest) {
	info, err := g.StartDetached(t.Context(), api.ExecRequest{Script: "echo one; echo two >&2; exit 4", Main: true})
	if err != nil || info.PID <= 0 {
		t.Fatalf("%+v, %v", info, err)
	}
	eventually(t, 5*time.Second, "the output in the log", func() bool {
		var out bytes.Buffer
		if err := m.Logs(t.Context(), "g", LogOutput, false, &out); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(out.String(), "one\n") && strings.Contains(out.String(), "two\n")
	})
	eventually(t, 5*time.Second, "the end in the events", func() bool {
		events, err := m.Events(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		last := events[len(events)-1]
		return last.Type == "exec" && last.Attrs["exit_code"] == "4"
	})
}

// guestFollow: a log is followed until the VM ends.
func guestFollow(t *testing.T, m *Manager, g Guest) {
	out := &notice{want: "later", ch: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- m.Logs(t.Context(), "g", LogOutput, true, out) }()
	if _, err := g.StartDetached(t.Context(), api.ExecRequest{Script: "sleep 0.3; echo later", Main: true}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-out.ch:
	case <-time.After(5 * time.Second):
		t.Fatal("what was written later did not come")
	}
	if err := m.Stop(t.Context(), "g", StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it went on after the VM's end")
	}
	if err := m.Logs(t.Context(), "g", "other", false, io.Discard); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("an unknown log: %v", err)
	}
}
