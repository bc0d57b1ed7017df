// Package gate is what every request to the HTTP API passes before any route sees it: who may ask, how many at once, how long
// a piece of a body may take, and the log of who asked.
//
// Layer: part of the front server. It may import internal/server/web, api, errdefs, internal/sys.
package gate

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/server/web"
)

// Limits of what one server does at once.
const (
	MaxRequests    = 1024
	MaxStreams     = 768 // of them: those that ask for an answer that lasts, so that others always find room
	MaxConnections = 2048
)

// DefaultStall is how long a client over TCP may take for a piece of a body, in either direction. One of this host holds up
// nobody but its own user, and may have reasons: a callback that thinks about each line.
const (
	DefaultStall = 30 * time.Second
	LocalStall   = 10 * time.Minute
)

// Counts are the requests by what became of them.
type Counts struct {
	Running, Streams atomic.Int64
	// Answered is by the first digit of the status.
	Answered [6]atomic.Uint64
	Refused  atomic.Uint64 // of them: at the gate
}

// Gate lets requests through to a handler.
type Gate struct {
	// Remote says who may ask over TCP; nil: nobody.
	Remote *Remote
	Counts *Counts
	Log    *slog.Logger
	// Stall is how long a client may take for a piece of a body; 0 = DefaultStall, or LocalStall.
	Stall time.Duration
	// Stopping is closed when the server begins to stop.
	Stopping <-chan struct{}
}

// Wrap returns next behind the gate.
func (g Gate) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun, stall := time.Now(), g.stall(r)
		out := &writer{ResponseWriter: w, rc: http.NewResponseController(w), stall: stall}
		r = r.WithContext(web.WithStop(r.Context(), g.Stopping))
		r.Body = &body{ReadCloser: r.Body, rc: out.rc, stall: stall}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_ = out.rc.SetWriteDeadline(time.Time{}) // of the request before, on the same connection
		defer func() {
			fault := recover()
			if fault != nil && fault != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
				g.Log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
				if out.status == 0 {
					Refuse(out, errdefs.Internal.Errorf("the server failed").WithRemedy("its log tells why"))
					fault = nil
				} else {
					fault = http.ErrAbortHandler
				}
			}
			g.note(r, out, time.Since(begun), fault != nil)
			// What net/http does after us: it writes what is left and reads what nobody wanted.
			_ = out.rc.SetWriteDeadline(time.Now().Add(stall))
			_ = out.rc.SetReadDeadline(time.Now().Add(stall))
			if fault != nil {
				panic(fault)
			}
		}()
		g.pass(out, r, next)
	})
}

func (g Gate) stall(r *http.Request) time.Duration {
	if web.PeerOf(r.Context()).Remote {
		return cmp.Or(g.Stall, DefaultStall)
	}
	return cmp.Or(g.Stall, LocalStall)
}

func (g Gate) pass(w http.ResponseWriter, r *http.Request, next http.Handler) {
	running := g.Counts.Running.Add(1)
	defer g.Counts.Running.Add(-1)
	var streams int64
	if web.IsStream(r) {
		streams = g.Counts.Streams.Add(1)
		defer g.Counts.Streams.Add(-1)
	}
	if running > MaxRequests || streams > MaxStreams {
		w.Header().Set("Retry-After", "1")
		g.Counts.Refused.Add(1)
		Refuse(w, errdefs.Exhausted.Errorf("%d requests, %d of them streams, are under way at once", running-1, g.Counts.Streams.Load()).WithRemedy("try again, or end streams"))
		return
	}
	if web.PeerOf(r.Context()).Remote {
		if err := g.Remote.check(w, r); err != nil {
			g.Counts.Refused.Add(1)
			Refuse(w, err)
			return
		}
	}
	next.ServeHTTP(w, r)
}

// note logs a request: no header, no body, no query, in which secrets are.
func (g Gate) note(r *http.Request, w *writer, took time.Duration, broken bool) {
	status := w.status
	if status == 0 {
		status = http.StatusOK
	}
	g.Counts.Answered[min(status/100, 5)].Add(1)
	args := []any{"method", r.Method, "path", r.URL.Path, "status", status, "bytes", w.bytes, "ms", took.Milliseconds()}
	if p := web.PeerOf(r.Context()); p.Remote {
		args = append(args, "from", r.RemoteAddr)
	} else {
		args = append(args, "pid", p.PID)
	}
	if broken {
		args = append(args, "broken", true)
	}
	g.Log.Info("request", args...)
}

// Refuse answers with err as a problem.
func Refuse(w http.ResponseWriter, err error) { web.ProblemOf(err).Answer(w) }
