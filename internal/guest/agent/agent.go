package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/smolvm/smolvm/internal/guest/agent/command"
	"github.com/smolvm/smolvm/internal/guest/agent/files"
	"github.com/smolvm/smolvm/internal/guest/proto"
)

// System is the machine below the service.
type System interface {
	// Configure makes the guest who it is to be. The runner is what commands run by from then on.
	Configure(c *proto.ConfigureRequest) (diskBytes int64, r *command.Runner, err error)
	// Resumed gives a restored guest its new time, randomness and identity. No command runs meanwhile.
	Resumed(r *proto.ResumedRequest) error
	// Awake is called when they run again, and waits for what had to begin anew.
	Awake() error
	// Shutdown writes the file systems back; no command runs any more.
	Shutdown()
}

// Options are what a service needs.
type Options struct {
	Build string
	Log   *slog.Logger // nil: none
	// System is nil where the agent serves inside an ordinary process, for tests on the host: then it mounts nothing and
	// its commands run in no control group.
	System System
	// PowerOff is called after Shutdown was answered; may be nil.
	PowerOff func()
}

// Agent answers the host's calls.
type Agent struct {
	opts Options
	bufs files.Buffers
	gate chan struct{} // of connections to ports

	environ sync.Mutex // of changes of the environment

	mu         sync.Mutex
	runner     *command.Runner // nil until Configure
	configured bool
	failed     error // why Configure failed: it cannot be tried again
	epoch      uint64
	pending    bool // a new epoch was announced and Resumed has not come
	off        func()
	calls      int           // Exec calls under way
	idle       chan struct{} // closed when there is none any more; nil unless Shutdown waits
}

// New returns an agent.
func New(opts Options) *Agent {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Agent{opts: opts, gate: make(chan struct{}, portWriters)}
}

// Serve answers on l's connections until l fails or ctx ends, and returns why. It closes l.
func Serve(ctx context.Context, l net.Listener, opts Options) error {
	return New(opts).Serve(ctx, l)
}

const (
	maxStreams     = 512 // half of them for connections to ports, which the host bounds
	maxFrame       = 512 << 10
	streamWindow   = 2 << 20
	connWindow     = 4<<20 - 1
	shutdownLinger = 500 * time.Millisecond
)

// Serve is like the function Serve.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{ //nolint:gosec // no header timeout: its one client is the host, which may be silent for long
		Handler: a.Handler(), Protocols: protocols, MaxHeaderBytes: proto.MaxHeader,
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				a.hostGone()
			}
		},
		ErrorLog: slog.NewLogLogger(a.opts.Log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReadFrameSize: maxFrame,
			MaxReceiveBufferPerConnection: connWindow, MaxReceiveBufferPerStream: streamWindow,
		},
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err := srv.Serve(l)
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return ctx.Err()
	}
	return err
}

// execBegins and execEnds count the Exec calls, whose callers are to learn how their commands ended.
func (a *Agent) execBegins() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
}

func (a *Agent) execEnds() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls--; a.calls == 0 && a.idle != nil {
		close(a.idle)
		a.idle = nil
	}
}

// awaitExecs waits until all Exec calls were answered, but not long: a host may not read its answers.
func (a *Agent) awaitExecs() {
	a.mu.Lock()
	if a.calls == 0 {
		a.mu.Unlock()
		return
	}
	if a.idle == nil {
		a.idle = make(chan struct{})
	}
	idle := a.idle
	a.mu.Unlock()
	select {
	case <-idle:
	case <-time.After(shutdownLinger):
	}
}

// powerOff switches the machine off when the host has hung up, as it does once it has the answer to Shutdown, or soon.
func (a *Agent) powerOff() {
	if a.opts.PowerOff == nil {
		return
	}
	a.mu.Lock()
	a.off = sync.OnceFunc(a.opts.PowerOff)
	off := a.off
	a.mu.Unlock()
	time.AfterFunc(shutdownLinger, off)
}

func (a *Agent) hostGone() {
	a.mu.Lock()
	off := a.off
	a.mu.Unlock()
	if off != nil {
		off()
	}
}

// Handler returns the whole service.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	path, rpc := proto.NewAgentHandler(a,
		connect.WithReadMaxBytes(proto.MaxMessage), connect.WithSendMaxBytes(proto.MaxMessage),
		connect.WithCompression("gzip", nil, nil), // the link is faster than that
		connect.WithInterceptors(&gate{a}))
	mux.Handle(path, rpc)
	mux.HandleFunc("PUT /v1/clock", a.putClock)
	mux.HandleFunc("POST /v1/port", a.onPort(a.openPort))
	mux.HandleFunc("GET /v1/port/wait", a.onPort(a.waitPort))
	mux.HandleFunc("GET /v1/file", a.bulk(a.getFile))
	mux.HandleFunc("PUT /v1/file", a.bulk(a.putFile))
	mux.HandleFunc("GET /v1/tar", a.bulk(a.getTar))
	mux.HandleFunc("PUT /v1/tar", a.bulk(a.putTar))
	return mux
}

var (
	errPending       = errors.New("the machine is in a new epoch and was not told of it")
	errNotConfigured = errors.New("the guest is not configured")
	errConfigured    = errors.New("the guest is configured")
)

// ready tells why no ordinary call can be answered.
func (a *Agent) ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.pending:
		return errPending
	case !a.configured:
		return errNotConfigured
	}
	return nil
}

// gate lets through what may be called in the agent's state.
type gate struct{ a *Agent }

// early are the calls that a guest answers before it is configured or resumed.
func early(procedure string) bool {
	switch procedure {
	case proto.AgentHelloProcedure, proto.AgentConfigureProcedure, proto.AgentResumedProcedure,
		proto.AgentPingProcedure, proto.AgentShutdownProcedure:
		return true
	}
	return false
}

func (g *gate) check(procedure string) error {
	if early(procedure) {
		return nil
	}
	if err := g.a.ready(); err != nil {
		return connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return nil
}

// WrapUnary implements connect.Interceptor.
func (g *gate) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := g.check(req.Spec().Procedure); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (g *gate) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor.
func (g *gate) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := g.check(conn.Spec().Procedure); err != nil {
			return err
		}
		return next(ctx, conn)
	}
}
