package rpc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/sockpath"
)

// Server is a supervisor's end of the control socket. What it answers is added by Handle and its like before Serve.
type Server struct {
	mux  *http.ServeMux
	http *http.Server
	log  *slog.Logger
	call func(route string) (done func())
}

// OnCall has f called with the route of each call, after Hello, and what it returns at the call's end. It is for before Serve.
func (s *Server) OnCall(f func(route string) (done func())) { s.call = f }

// NewServer returns a server that says hello. The end of ctx ends what its handlers do.
func NewServer(ctx context.Context, hello Hello, log *slog.Logger) *Server {
	s := &Server{mux: http.NewServeMux(), log: log}
	hello.ProtocolMin, hello.ProtocolMax, hello.PID = ProtocolMin, ProtocolMax, os.Getpid()
	s.mux.HandleFunc("POST "+RouteHello, func(w http.ResponseWriter, _ *http.Request) { answer(w, hello) })
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler: s.mux, Protocols: p, ReadHeaderTimeout: 10 * time.Second,
		HTTP2:       &http.HTTP2Config{MaxReadFrameSize: maxFrame, MaxReceiveBufferPerStream: inputWindow, MaxReceiveBufferPerConnection: 32 * inputWindow},
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return s
}

// Serve answers on l until Close. Who is not of our user is not let in.
func (s *Server) Serve(l *net.UnixListener) error {
	err := s.http.Serve(&ownListener{l, s.log})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown lets the answers under way go out and takes no more requests.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

// Close ends everything at once.
func (s *Server) Close() error { return s.http.Close() }

// ownListener lets in only our own user.
type ownListener struct {
	*net.UnixListener
	log *slog.Logger
}

func (l *ownListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, pid, err := sockpath.Peer(c)
		if err == nil && int(uid) == os.Geteuid() {
			return c, nil
		}
		l.log.Warn("refused a connection", "uid", uid, "pid", pid, "error", err)
		_ = c.Close()
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that has gone needs no answer
}

func refuse(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(errdefs.ClassOf(err).HTTPStatus())
	_ = json.NewEncoder(w).Encode(errdefs.ToProblem(err))
}

// route adds a handler behind the check of protocols.
func (s *Server) route(pattern string, h func(http.ResponseWriter, *http.Request) error) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		err := checkProtocols(r)
		if err == nil {
			if s.call != nil {
				defer s.call(r.URL.Path)()
			}
			err = h(w, r)
		}
		if err != nil {
			refuse(w, err)
		}
	})
}

// Handle adds the answer to a call.
func Handle[Req, Res any](s *Server, route string, f func(context.Context, Req) (Res, error)) {
	s.route("POST "+route, func(w http.ResponseWriter, r *http.Request) error {
		var req Req
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCall)).Decode(&req); err != nil {
			return errdefs.Invalid.Errorf("the request is malformed: %w", err)
		}
		res, err := f(r.Context(), req)
		if err == nil {
			answer(w, res)
		}
		return err
	})
}

// HandleGet adds the answer to a request for a stream of bytes. One that fails on the way is broken off.
func (s *Server) HandleGet(route string, open func(context.Context, url.Values) (io.ReadCloser, error)) {
	s.route("GET "+route, func(w http.ResponseWriter, r *http.Request) error {
		body, err := open(r.Context(), r.URL.Query())
		if err != nil {
			return err
		}
		defer func() { _ = body.Close() }()
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			panic(http.ErrAbortHandler)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{w}, body, make([]byte, chunkSize)); err != nil {
			panic(http.ErrAbortHandler) // the one way to say that the body is not whole
		}
		return nil
	})
}

// HandlePut adds the answer to a request that brings a stream of bytes.
func (s *Server) HandlePut(route string, take func(context.Context, url.Values, io.Reader) error) {
	s.route("PUT "+route, func(w http.ResponseWriter, r *http.Request) error {
		err := take(r.Context(), r.URL.Query(), r.Body)
		if err == nil {
			answer(w, Nothing{})
		}
		return err
	})
}

// HandleExec adds the answer to exec.
func (s *Server) HandleExec(f func(context.Context, api.ExecRequest, ExecIO) (api.ExecResult, error)) {
	s.route("POST "+RouteExec, func(w http.ResponseWriter, r *http.Request) error {
		in := bufio.NewReaderSize(r.Body, chunkSize)
		var req api.ExecRequest
		if err := readStart(in, &req); err != nil {
			return errdefs.Invalid.Errorf("the request is malformed: %w", err)
		}
		out := &execWriter{w: w, rc: http.NewResponseController(w)}
		res, err := f(r.Context(), req, ExecIO{
			Stdin:   in,
			Stdout:  streamWriter{out, frameStdout},
			Stderr:  streamWriter{out, frameStderr},
			Started: func(p api.ProcessInfo) { _ = out.sendJSON(frameStarted, p) },
		})
		switch {
		case err == nil:
			_ = out.sendJSON(frameExit, res)
		case !out.begun:
			return err
		default:
			_ = out.sendJSON(frameProblem, errdefs.ToProblem(err))
		}
		return nil
	})
}

// execWriter sends an exec's frames.
type execWriter struct {
	mu    sync.Mutex
	w     http.ResponseWriter
	rc    *http.ResponseController
	begun bool
}

func (e *execWriter) send(kind byte, p []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.begun = true
	if err := writeFrame(e.w, kind, p); err != nil {
		return err
	}
	return e.rc.Flush()
}

func (e *execWriter) sendJSON(kind byte, v any) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.begun = true
	if err := writeJSONFrame(e.w, kind, v); err != nil {
		return err
	}
	if kind == frameExit || kind == frameProblem {
		return nil // goes out with the end of the stream
	}
	return e.rc.Flush()
}

// streamWriter makes frames of what a command prints.
type streamWriter struct {
	out  *execWriter
	kind byte
}

func (s streamWriter) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		n := min(len(p)-done, chunkSize)
		if err := s.out.send(s.kind, p[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// HandleStart adds the answer to a command that is started and left alone.
func (s *Server) HandleStart(f func(context.Context, api.ExecRequest) (api.ProcessInfo, error)) {
	s.route("POST "+RouteStart, func(w http.ResponseWriter, r *http.Request) error {
		var req api.ExecRequest
		if err := readStart(r.Body, &req); err != nil {
			return errdefs.Invalid.Errorf("the request is malformed: %w", err)
		}
		info, err := f(r.Context(), req)
		if err == nil {
			answer(w, info)
		}
		return err
	})
}
