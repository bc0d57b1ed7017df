// Package server is the HTTP API. It is stateless: what it tells is in the VMs' directories, so that it can die, come
// back, or run several times.
//
// Layer: front. It may import lifecycle, api, errdefs, internal/sys, and the parts of server below it.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/server/commands"
	"github.com/smolvm/smolvm/internal/server/sandboxes"
	"github.com/smolvm/smolvm/internal/server/settings"
	"github.com/smolvm/smolvm/internal/server/web"
	"github.com/smolvm/smolvm/internal/sys/sockpath"
)

// Options are what a Server works with.
type Options struct {
	VMs     *lifecycle.Manager
	Version api.Version
	Log     *slog.Logger
	// SSHImages lays out images for logins by SSH; nil: there are none.
	SSHImages settings.SSHImages
}

// Server answers the HTTP API.
type Server struct {
	opts   Options
	api    huma.API
	http   *http.Server
	guests *guests
}

// malformed has huma tell failures as we do. It knows no other way than a variable of its own.
var malformed = sync.OnceFunc(func() { huma.NewError = web.Malformed })

// New returns a server. The end of ctx ends what its handlers do.
func New(ctx context.Context, o Options) *Server {
	malformed()
	mux := http.NewServeMux()
	config := huma.DefaultConfig("SmolVM", "1.0.0")
	config.CreateHooks = nil // no links to schemas in answers
	config.FieldsOptionalByDefault, config.RejectUnknownQueryParameters = true, true
	config.OpenAPI.Info.Description = "Disposable microVMs."
	s := &Server{opts: o, api: humago.New(mux, config), guests: newGuests(o.VMs.Connect)}
	s.register()
	s.http = &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: withPeer,
		ErrorLog:    slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	return s
}

func (s *Server) register() {
	web.Register(s.api, huma.Operation{OperationID: "version", Method: http.MethodGet, Path: "/v1/version", Tags: []string{"server"}, Summary: "Tell which program this is"},
		func(context.Context, *struct{}) (*web.Body[api.Version], error) {
			return &web.Body[api.Version]{Body: s.opts.Version}, nil
		})
	sandboxes.Routes{VMs: s.opts.VMs, Peer: peer}.Register(s.api)
	settings.Routes{VMs: s.opts.VMs, Build: s.opts.SSHImages, Peer: peer}.Register(s.api)
	commands.Routes{Connect: func(ctx context.Context, id string) (commands.Runner, func(), error) {
		g, release, err := s.guests.take(ctx, id)
		return g, release, err
	}}.Register(s.api)
}

// Serve answers on l until Shutdown or Close.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown lets the answers under way go out and takes no more requests.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.guests.close()
	return s.http.Shutdown(ctx)
}

// Close ends everything at once.
func (s *Server) Close() error {
	defer s.guests.close()
	return s.http.Close()
}

type peerKey struct{}

// withPeer remembers who is at the other end of a socket of this host.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	_, pid, err := sockpath.Peer(u)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, pid)
}

func peer(ctx context.Context) int {
	pid, _ := ctx.Value(peerKey{}).(int)
	return pid
}
