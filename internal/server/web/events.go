package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// beat is how long a client hears nothing before it gets a comment, so that what is in between does not take the connection for
// dead.
const beat = 15 * time.Second

// Events writes server-sent events. How long a client may read nothing is the gate's business. It is safe for concurrent use.
type Events struct {
	mu     sync.Mutex
	w      http.ResponseWriter
	rc     *http.ResponseController
	err    error
	closed chan struct{}
}

// NewEvents begins an answer of events. Close it before the operation returns.
func NewEvents(c huma.Context) *Events {
	_, w := humago.Unwrap(c)
	w.Header().Set("Content-Type", EventStream)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	e := &Events{w: w, rc: http.NewResponseController(w), closed: make(chan struct{})}
	_ = e.write([]byte(": begin\n\n"))
	go e.beats()
	return e
}

// Finish tells err, unless it is that the client has gone.
func (e *Events) Finish(ctx context.Context, err error) {
	if err = Stopped(ctx, err); err != nil && (ctx.Err() == nil || errors.Is(err, ErrStopping)) {
		e.Try("error", ProblemOf(err))
	}
}

func (e *Events) beats() {
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-e.closed:
			return
		case <-t.C:
			_ = e.write([]byte(": \n\n"))
		}
	}
}

// Send writes one event; v is its data as JSON. Its error is that of a client that has gone.
func (e *Events) Send(event string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b := make([]byte, 0, len(event)+len(data)+16)
	b = append(b, "event: "...)
	b = append(b, event...)
	b = append(b, "\ndata: "...)
	b = append(b, data...)
	b = append(b, "\n\n"...)
	return e.write(b)
}

// Try is Send where nobody minds a client that has gone.
func (e *Events) Try(event string, v any) { _ = e.Send(event, v) }

func (e *Events) write(b []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return e.err
	}
	if _, e.err = e.w.Write(b); e.err == nil {
		e.err = e.rc.Flush()
	}
	return e.err
}

// Close ends the beats.
func (e *Events) Close() {
	close(e.closed)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = http.ErrBodyNotAllowed // the answer is over
	}
}
