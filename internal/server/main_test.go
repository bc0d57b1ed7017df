package server

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/budget"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/fake"
	"github.com/smolvm/smolvm/internal/guest/agent"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/bootfile"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/gateway/process"
	"github.com/smolvm/smolvm/internal/server/gate"
	"github.com/smolvm/smolvm/internal/server/images"
	"github.com/smolvm/smolvm/internal/server/listen"
	"github.com/smolvm/smolvm/internal/supervisor"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/token"
)

// What the test's program plays besides the test.
const (
	serveVar = "SMOLVM_TEST_SERVE" // a server: at a socket's path, or at ADDRESS:PORT
	homeVar  = "SMOLVM_TEST_HOME"  // over this home
	tameVar  = "SMOLVM_TEST_TAME"  // guests that refuse commands and files: the guest is this very host
)

func TestMain(m *testing.M) {
	ctx := context.Background()
	switch {
	case len(os.Args) == 3 && os.Args[1] == rpc.Command:
		os.Exit(supervisor.Main(ctx, os.Args[2], supervisor.Deps{Engines: engines(ctx), Version: api.Version{Version: "test"}, Verdicts: os.Getenv("SMOLVM_TEST_VERDICTS")}))
	case len(os.Args) == 2 && os.Args[1] == control.Command:
		os.Exit(process.Main(ctx))
	case os.Getenv(serveVar) != "":
		if err := serveMain(ctx, os.Getenv(serveVar), os.Getenv(homeVar)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serveMain is a server as `smolvm serve` is one, over the fake engine.
func serveMain(ctx context.Context, at, home string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	o, err := options(home)
	if err != nil {
		return err
	}
	var l net.Listener
	if strings.HasPrefix(at, "/") {
		l, err = listen.Unix(ctx, at, o.Log)
	} else {
		var named func(string) bool
		l, named, err = listen.TCP(ctx, at, "", "")
		file := &token.File{Path: token.Path(home)}
		o.Remote = gate.NewRemote(o.Log, file.Token, named, Open()...)
	}
	if err != nil {
		return err
	}
	s := New(context.WithoutCancel(ctx), o)
	if err := json.NewEncoder(os.Stdout).Encode(map[string]any{"url": "http://" + l.Addr().String()}); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	<-ctx.Done()
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_ = s.Shutdown(late)
	_ = s.Close()
	if os.Getenv(tameVar) != "" { // what was asked for by nobody
		boxes, err := o.VMs.List(late, true)
		for _, b := range boxes {
			err = errors.Join(err, o.VMs.Remove(late, b.ID, true))
		}
		if err != nil {
			return err
		}
	}
	return <-done
}

// options are those of a server over the fake engine, which has the real agent for a guest.
func options(home string) (Options, error) {
	store := image.New(image.Options{Home: home, Builders: []image.Builder{builder{}}, Kernels: kernels{}, Version: "test"})
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	m, err := lifecycle.New(lifecycle.Options{
		Home: home, Engines: engines(context.Background()), Images: store, Agent: []byte("agent"), Version: api.Version{Version: "test"},
		Budget: budget.Budget{VMs: 8}, Log: log,
	})
	sshImages := func(ctx context.Context, r api.SSHImageRequest, progress api.ProgressFunc) (api.SSHImage, error) {
		return bootfile.Build(ctx, store, r, progress)
	}
	return Options{VMs: m, Images: cache{store}, SSHImages: sshImages, Version: api.Version{Version: "test"}, Log: log}, err
}

// cache is the image store as main joins it.
type cache struct{ *image.Store }

// Make implements images.Store.
func (c cache) Make(ctx context.Context, b images.Build, progress api.ProgressFunc) (api.Image, error) {
	if _, err := c.EnsureKernel(ctx, b.Refresh, progress); err != nil {
		return api.Image{}, err
	}
	return c.Ensure(ctx, b.Name, image.EnsureOptions{Refresh: b.Refresh, Include: b.Include, Progress: progress})
}

func engines(ctx context.Context) *engine.Registry {
	g := &fakeGuests{ctx: ctx, tame: os.Getenv(tameVar) != "", agents: map[*fake.Machine]*agent.Agent{}}
	r := &engine.Registry{}
	// One that is no emulation, so that require_accel fails nowhere for this host's sake.
	caps := engine.Caps{Accels: []engine.Accel{{Name: "kvm"}, {Name: "tcg", Emulated: true}}}
	r.MustAdd(fake.New(fake.Options{Guest: g.serve, Caps: caps}))
	return r
}

// fakeGuests are the agents of an engine's machines.
type fakeGuests struct {
	ctx    context.Context
	tame   bool
	mu     sync.Mutex
	agents map[*fake.Machine]*agent.Agent
}

func (g *fakeGuests) serve(c net.Conn) {
	m := c.(*fake.Conn).Machine
	g.mu.Lock()
	a := g.agents[m]
	if a == nil {
		a = agent.New(agent.Options{Build: "test", PowerOff: func() { m.End(engine.Exit{Kind: engine.ExitPoweroff}) }})
		g.agents[m] = a
	}
	g.mu.Unlock()
	l := &oneConn{make(chan net.Conn, 1), make(chan struct{})}
	l.conn <- &closing{Conn: c, closed: l.closed}
	if g.tame {
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		srv := &http.Server{Handler: tamed(a.Handler()), Protocols: protocols, MaxHeaderBytes: proto.MaxHeader, ReadHeaderTimeout: time.Minute}
		_ = srv.Serve(l)
	} else {
		_ = a.Serve(g.ctx, l)
	}
	<-l.closed
}

// tamed is an agent that has nothing done to its host, where it finds nothing.
func tamed(h http.Handler) http.Handler {
	failures := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:] {
		case "Hello", "Configure", "Resumed", "Ping", "Processes", "Sync", "Metrics", "Shutdown":
			h.ServeHTTP(w, r)
			return
		}
		if failures.IsSupported(r) {
			_ = failures.Write(w, r, connect.NewError(connect.CodeNotFound, errors.New("nothing is here")))
			return
		}
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(errdefs.Problem{Code: errdefs.NotFound, Message: "nothing is here"})
	})
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
