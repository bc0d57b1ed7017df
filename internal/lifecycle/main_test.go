package lifecycle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/fake"
	"github.com/smolvm/smolvm/internal/guest/agent"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/gateway/process"
	"github.com/smolvm/smolvm/internal/supervisor"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
)

// scriptVar tells a supervisor's engine how to behave.
const scriptVar = "SMOLVM_TEST_SCRIPT"

// TestMain plays the program: lifecycle starts /proc/self/exe as a supervisor, and a client for the tests of owners.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == rpc.Command {
		if os.Getenv("GORACE") == "" { // under the race detector each supervisor would end a second late
			err := syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), "GORACE=atexit_sleep_ms=10"))
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		ctx := context.Background()
		if os.Getenv(scriptVar) == "late" { // it knows of no signal yet
			time.Sleep(5 * time.Second)
		}
		os.Exit(supervisor.Main(ctx, os.Args[2], supervisor.Deps{
			Engines: engines(ctx, os.Getenv(scriptVar)), Version: api.Version{Version: "test"},
			Verdicts: os.Getenv("SMOLVM_TEST_VERDICTS"),
		}))
	}
	if len(os.Args) == 2 && os.Args[1] == control.Command {
		os.Exit(process.Main(context.Background()))
	}
	if home := os.Getenv(clientVar); home != "" {
		os.Exit(clientMain(home))
	}
	os.Exit(m.Run())
}

// engines is a registry whose one engine has the real agent for a guest, in this process.
func engines(ctx context.Context, script string) *engine.Registry {
	g := &guests{ctx: ctx, agents: map[*fake.Machine]*agent.Agent{}}
	o := fake.Options{Guest: g.serve}
	switch script {
	case "silent":
		o.Boot = func(ctx context.Context, m *fake.Machine) error {
			_, _ = io.WriteString(m.Spec().Console, "one\r\nlast\x1b[31m words\n")
			<-ctx.Done()
			return ctx.Err()
		}
	case "panics":
		o.Boot = func(ctx context.Context, m *fake.Machine) error {
			_, _ = io.WriteString(m.Spec().Console, "[ 0.1] Kernel panic - not syncing: VFS: no root\n")
			m.End(engine.Exit{Kind: engine.ExitReboot})
			<-ctx.Done()
			return ctx.Err()
		}
	case "useless-kvm":
		o.Caps.Accels = []engine.Accel{{Name: "kvm"}, {Name: "tcg", Emulated: true}}
		o.Boot = func(ctx context.Context, m *fake.Machine) error {
			if m.Spec().Accel == "kvm" {
				m.Emit(engine.Event{Kind: engine.EventBroken, Detail: "internal-error"})
				<-ctx.Done()
			}
			return ctx.Err()
		}
	case "missing-kvm":
		o.Caps.Accels = []engine.Accel{{Name: "kvm", Missing: "/dev/kvm is for root alone", Remedy: "a command"}, {Name: "tcg", Emulated: true}}
	case "fine-kvm":
		o.Caps.Accels = []engine.Accel{{Name: "kvm"}, {Name: "tcg", Emulated: true}}
	case "killed-kvm", "gone-kvm":
		o.Caps.Accels = []engine.Accel{{Name: "kvm"}, {Name: "tcg", Emulated: true}}
		o.Boot = func(ctx context.Context, m *fake.Machine) error {
			if m.Spec().Accel == "kvm" {
				m.End(engine.Exit{Kind: engine.ExitKilled, Signal: "SIGKILL"})
				if script == "gone-kvm" { // whoever dials is the first to see it
					return errors.New("the machine has ended")
				}
				<-ctx.Done()
			}
			return ctx.Err()
		}
	case "silent-kvm":
		o.Caps.Accels = []engine.Accel{{Name: "kvm"}, {Name: "tcg", Emulated: true}}
		o.Boot = func(ctx context.Context, _ *fake.Machine) error {
			<-ctx.Done()
			return ctx.Err()
		}
	case "no-start":
		o.StartErr = func(engine.Spec) error { return errors.New("the engine does not want to") }
	case "stubborn":
		g.stubborn = true
	}
	r := &engine.Registry{}
	r.MustAdd(fake.New(o))
	return r
}

// guests are the agents of an engine's machines.
type guests struct {
	ctx      context.Context
	stubborn bool // they do not power off
	mu       sync.Mutex
	agents   map[*fake.Machine]*agent.Agent
}

func (g *guests) serve(c net.Conn) {
	m := c.(*fake.Conn).Machine
	g.mu.Lock()
	a := g.agents[m]
	if a == nil {
		o := agent.Options{Build: "test", PowerOff: func() { m.End(engine.Exit{Kind: engine.ExitPoweroff}) }}
		if g.stubborn {
			o.PowerOff = nil
		}
		a = agent.New(o)
		g.agents[m] = a
	}
	g.mu.Unlock()
	l := newOneConn(c)
	_ = a.Serve(g.ctx, l)
	<-l.closed
}

// oneConn is a listener with one connection. It ends with it.
type oneConn struct {
	conn   chan net.Conn
	closed chan struct{}
}

type closing struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *closing) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func newOneConn(c net.Conn) *oneConn {
	l := &oneConn{make(chan net.Conn, 1), make(chan struct{})}
	l.conn <- &closing{Conn: c, closed: l.closed}
	return l
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "fake"} }

// kernels is a source whose kernel nobody runs.
type kernels struct{}

func (kernels) Fetch(_ context.Context, dir string, _ api.ProgressFunc) (api.Kernel, error) {
	if err := os.Mkdir(filepath.Join(dir, image.InitrdModules), 0o700); err != nil {
		return api.Kernel{}, err
	}
	for _, name := range []string{image.KernelFile, image.ModulesFile, filepath.Join(image.InitrdModules, "list")} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			return api.Kernel{}, err
		}
	}
	return api.Kernel{Release: "6.0.0-test", Package: "linux", Version: "6.0", CreatedAt: time.Now()}, nil
}

// builder gives a root file system of one file.
type builder struct{}

func (builder) Name() string { return api.DefaultImage }

func (builder) Build(_ context.Context, _ image.BuildRequest, w io.Writer) (image.Facts, error) {
	t := tar.NewWriter(w)
	if err := t.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: 4}); err != nil {
		return image.Facts{}, err
	}
	if _, err := t.Write([]byte("text")); err != nil {
		return image.Facts{}, err
	}
	return image.Facts{Source: "test"}, t.Close()
}

func newManager(home string) (*Manager, error) {
	return New(Options{
		Home:    home,
		Engines: engines(context.Background(), ""),
		Images:  image.New(image.Options{Home: home, Builders: []image.Builder{builder{}}, Kernels: kernels{}, Version: "test"}),
		Agent:   []byte("agent"), Version: api.Version{Version: "test"},
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
}

// rig is a home with a manager, whose supervisors behave as script says.
func rig(t *testing.T, script string) *Manager {
	t.Helper()
	t.Setenv(scriptVar, script)
	t.Setenv("SMOLVM_TEST_VERDICTS", filepath.Join(t.TempDir(), "verdicts"))
	home := filepath.Join(t.TempDir(), "home")
	m, err := newManager(home)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		boxes, err := m.List(ctx, true)
		if err != nil {
			t.Error(err)
		}
		for _, b := range boxes {
			if t.Failed() {
				log, _ := os.ReadFile(m.store.Path(b.ID, "supervisor.log"))
				t.Logf("%s is %s (%s), its supervisor says: %s", b.ID, b.State, b.Reason, log)
			}
			if err := m.Remove(ctx, b.ID, true); err != nil {
				t.Errorf("remove %s: %v", b.ID, err)
			}
		}
		leftovers(t, home)
	})
	return m
}

// leftovers checks that nothing but empty directories, locks and the cache is left in a home.
func leftovers(t *testing.T, home string) {
	t.Helper()
	for _, dir := range []string{"vms", "trash"} {
		entries, _ := os.ReadDir(filepath.Join(home, dir))
		for _, e := range entries {
			t.Errorf("%s/%s is left", dir, e.Name())
		}
	}
}

// create creates a small VM.
func create(t *testing.T, m *Manager, id string, o CreateOptions) api.Sandbox {
	t.Helper()
	box, err := m.Create(t.Context(), api.Config{ID: id, DiskMiB: 256}, o)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// started creates and starts a VM.
func started(t *testing.T, m *Manager, id string) api.Sandbox {
	t.Helper()
	create(t, m, id, CreateOptions{})
	box, err := m.Start(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return box
}

// run runs a command and returns what it printed.
func run(t *testing.T, m *Manager, id string, argv ...string) (string, api.ExecResult) {
	t.Helper()
	g, err := m.Connect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	var out bytes.Buffer
	res, err := g.Exec(t.Context(), api.ExecRequest{Argv: argv}, ExecIO{Stdout: &out, Stderr: &out})
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), res
}

// state wants a state and a reason.
func state(t *testing.T, m *Manager, id string, want api.State, reason string) api.Sandbox {
	t.Helper()
	box, err := m.Inspect(t.Context(), id, false)
	if err != nil {
		t.Fatal(err)
	}
	if box.State != want || !strings.Contains(box.Reason, reason) {
		t.Errorf("%s is %s, %q; want %s, %q", id, box.State, box.Reason, want, reason)
	}
	return box
}

// eventually waits for a condition.
func eventually(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for begun := time.Now(); !holds(); {
		if time.Since(begun) > limit {
			t.Fatalf("%s: not within %s", what, limit)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// alive reports whether a process is there and no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}
