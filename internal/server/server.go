// Package server is the HTTP API. It is stateless: what it tells is in the VMs' directories, so that it can die, come
// back, or run several times.
//
// Layer: front. It may import lifecycle, api, errdefs, internal/sys, and the parts of server below it.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/server/commands"
	"github.com/smolvm/smolvm/internal/server/docs"
	"github.com/smolvm/smolvm/internal/server/files"
	"github.com/smolvm/smolvm/internal/server/gate"
	"github.com/smolvm/smolvm/internal/server/hostpath"
	"github.com/smolvm/smolvm/internal/server/images"
	"github.com/smolvm/smolvm/internal/server/network"
	"github.com/smolvm/smolvm/internal/server/sandboxes"
	"github.com/smolvm/smolvm/internal/server/settings"
	"github.com/smolvm/smolvm/internal/server/status"
	"github.com/smolvm/smolvm/internal/server/watch"
	"github.com/smolvm/smolvm/internal/server/web"
	"github.com/smolvm/smolvm/internal/sys/sockpath"
)

// Options are what a Server works with.
type Options struct {
	VMs     *lifecycle.Manager
	Images  images.Store
	Version api.Version
	// Remote says who may ask over TCP; nil: nobody.
	Remote *gate.Remote
	// Paths are the files of this host that requests over TCP may name.
	Paths hostpath.Allowed
	Log   *slog.Logger
	// SSHImages lays out images for logins by SSH; nil: there are none.
	SSHImages settings.SSHImages
}

// Server answers the HTTP API.
type Server struct {
	opts     Options
	api      huma.API
	http     *http.Server
	guests   *guests
	counts   *gate.Counts
	stopping chan struct{}
	stop     func()
	conns    atomic.Int64
	sockets  sync.WaitGroup // connections that http does not know any more
}

// settle has huma tell failures as we do, and lists that are empty as such. It knows no other way than variables of its own.
var settle = sync.OnceFunc(func() { huma.NewError, huma.DefaultArrayNullable = web.Malformed, false })

// Open are the paths that need no token: they show nothing of anybody's.
func Open() []string {
	return []string{status.Health, "/openapi.json", "/openapi.yaml", docs.Path, docs.Path + "/"}
}

// New returns a server. The end of ctx ends what its handlers do.
func New(ctx context.Context, o Options) *Server {
	settle()
	mux := http.NewServeMux()
	config := huma.DefaultConfig("SmolVM", "1.0.0")
	config.CreateHooks = nil // no links to schemas in answers
	config.SchemasPath, config.DocsPath = "", ""
	config.FieldsOptionalByDefault, config.RejectUnknownQueryParameters = true, true
	config.OpenAPI.Info.Description = "Disposable microVMs for programs that nobody has read. In requests everything is optional unless marked, what is not known is refused, and null is as if it were not there."
	config.OpenAPI.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	s := &Server{opts: o, api: humago.New(mux, config), guests: newGuests(o.VMs.Connect), counts: &gate.Counts{}, stopping: make(chan struct{})}
	s.stop = sync.OnceFunc(func() { close(s.stopping) })
	docs.Register(mux)
	s.register()
	if err := web.Finish(s.api.OpenAPI()); err != nil {
		panic(err) // a file in this program is none, which every test of the server finds
	}
	s.http = &http.Server{
		Handler:           gate.Gate{Remote: o.Remote, Counts: s.counts, Log: o.Log, Stopping: s.stopping}.Wrap(routed{mux}),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: withPeer,
		ConnState:   s.count,
		ErrorLog:    slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	return s
}

func (s *Server) register() {
	status.Routes{Version: s.opts.Version, Started: time.Now(), Counts: s.counts, List: s.opts.VMs.List}.Register(s.api)
	sandboxes.Routes{VMs: s.opts.VMs, Paths: s.opts.Paths}.Register(s.api)
	watch.Routes{VMs: s.opts.VMs}.Register(s.api)
	settings.Routes{VMs: s.opts.VMs, Build: s.opts.SSHImages}.Register(s.api)
	commands.Routes{Sockets: &s.sockets, On: func(ctx context.Context, id string, f func(commands.Guest) error) error {
		return s.guests.on(ctx, id, func(g lifecycle.Guest) error { return f(g) })
	}}.Register(s.api)
	files.Routes{On: func(ctx context.Context, id string, f func(files.Guest) error) error {
		return s.guests.on(ctx, id, func(g lifecycle.Guest) error { return f(g) })
	}}.Register(s.api)
	network.Routes{VMs: s.opts.VMs, On: func(ctx context.Context, id string, f func(network.Waiter) error) error {
		return s.guests.on(ctx, id, func(g lifecycle.Guest) error { return f(g) })
	}}.Register(s.api)
	images.Routes{Store: s.opts.Images}.Register(s.api)
}

// Document is the OpenAPI document.
func (s *Server) Document() ([]byte, error) { return json.MarshalIndent(s.api.OpenAPI(), "", "  ") }

// Serve answers on l until Shutdown or Close.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown ends streams that have no end of their own, lets the other answers under way go out, and takes no more requests.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	defer s.guests.close()
	err := s.http.Shutdown(ctx)
	ended := make(chan struct{})
	go func() {
		s.sockets.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	return err
}

// Close ends everything at once.
func (s *Server) Close() error {
	s.stop()
	defer s.guests.close()
	return s.http.Close()
}

// count bounds the connections.
func (s *Server) count(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if s.conns.Add(1) > gate.MaxConnections {
			_ = c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		s.conns.Add(-1)
	}
}

// withPeer remembers who is at the other end of a connection.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return web.WithPeer(ctx, web.Peer{Remote: true})
	}
	_, pid, err := sockpath.Peer(u)
	if err != nil {
		return ctx
	}
	return web.WithPeer(ctx, web.Peer{PID: pid})
}

// routed tells of paths and methods that there are not, as it tells of every other failure.
type routed struct{ mux *http.ServeMux }

// ServeHTTP implements http.Handler.
func (m routed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, pattern := m.mux.Handler(r)
	if pattern != "" {
		// "?force" is what somebody means to be true and what would be taken for absent.
		for name, values := range r.URL.Query() {
			if slices.Contains(values, "") {
				gate.Refuse(w, web.Malformed(http.StatusBadRequest, "validation failed", &huma.ErrorDetail{Location: "query." + name, Message: "has no value"}))
				return
			}
		}
		m.mux.ServeHTTP(w, r)
		return
	}
	probe := &probe{header: http.Header{}}
	h.ServeHTTP(probe, r)
	p := web.NewProblem(errdefs.NotFound, "there is no "+r.URL.Path)
	if probe.status == http.StatusMethodNotAllowed {
		allow := probe.header.Get("Allow")
		w.Header().Set("Allow", allow)
		p = web.NewProblem(errdefs.Invalid, r.Method+" is not for "+r.URL.Path)
		p.Status, p.Title, p.Remedy = http.StatusMethodNotAllowed, http.StatusText(http.StatusMethodNotAllowed), allow
	}
	gate.Refuse(w, p)
}

// probe hears what the mux would say.
type probe struct {
	header http.Header
	status int
}

func (p *probe) Header() http.Header         { return p.header }
func (p *probe) WriteHeader(status int)      { p.status = status }
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }
