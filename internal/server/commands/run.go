package commands

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/server/web"
)

const (
	answerGrace = 5 * time.Second // of a server that stops, for an answer that is a command's end
	streamGrace = time.Second     // for a stream: a client that dies at the same time is noticed by then
	startWait   = 30 * time.Second
	killWait    = 10 * time.Second
	sigkill     = 9
)

// errGone is the cause of the end of what a client asked for that is gone.
var errGone = errdefs.Unavailable.Errorf("the client is gone")

// untilStopped is ctx until the server has been stopping for a while; then it ends with web.ErrStopping.
func untilStopped(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	stop, release := web.UntilStop(ctx)
	ctx, end := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(stop, func() {
		if !errors.Is(context.Cause(stop), web.ErrStopping) {
			return
		}
		select {
		case <-time.After(grace):
			end(web.ErrStopping)
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		unhook()
		end(nil)
		release()
	}
}

// run runs a command for a client whose presence is ctx. The supervisor is told to keep it, so that it outlives a server
// that dies; when the client goes, it is killed here, with all that it started, unless it asked for something else. A client
// that goes before the command runs is no exception: its start is waited for.
func run(ctx context.Context, g Runner, req api.ExecRequest, streams lifecycle.ExecIO) (api.ExecResult, error) {
	keep := req.OnDisconnect == api.DisconnectKeep
	req.OnDisconnect = api.DisconnectKeep
	ctx, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	life, drop := context.WithCancel(context.WithoutCancel(ctx))
	defer drop()
	started := make(chan string, 1)
	notify := streams.Started
	streams.Started = func(p api.ProcessInfo) {
		started <- p.ExecID
		if notify != nil && ctx.Err() == nil {
			notify(p)
		}
	}
	if streams.Stdin != nil {
		streams.Stdin = &readable{ctx: ctx, r: streams.Stdin}
	}
	streams.Stdout, streams.Stderr = &sink{w: streams.Stdout, gone: gone}, &sink{w: streams.Stderr, gone: gone}
	var res api.ExecResult
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		res, err = g.Exec(life, req, streams)
	}()
	select {
	case <-done:
		return res, err
	case <-ctx.Done():
	}
	cause := context.Cause(ctx)
	if !errors.Is(cause, web.ErrStopping) && !keep {
		kill(life, g, started, done)
	}
	drop()
	<-done
	return res, cause
}

// kill ends a command and all that it started, once it runs.
func kill(ctx context.Context, g Runner, started <-chan string, done <-chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	select {
	case process := <-started:
		_ = g.Signal(ctx, process, sigkill, true) // it may have ended
	case <-done:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-time.After(killWait):
	}
}

// sink takes all of an output. When its writer does not, the client is gone.
type sink struct {
	w    io.Writer
	gone context.CancelCauseFunc
	dead bool
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	if s.dead {
		return len(p), nil
	}
	if _, err := s.w.Write(p); err != nil {
		s.dead = true
		s.gone(errGone)
	}
	return len(p), nil
}

// readable is a command's input that ends with its client.
type readable struct {
	ctx context.Context //nolint:containedctx // the client's presence
	r   io.Reader
}

// Read implements io.Reader.
func (r *readable) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, io.EOF
	}
	return r.r.Read(p)
}

// queue is input that a client sent and the command has not read yet: one piece is under way, few wait.
type queue struct {
	ctx    context.Context //nolint:containedctx // how long somebody reads
	pieces chan []byte
	over   bool // of put and close, which one goroutine calls
	left   []byte
}

func newQueue(ctx context.Context) *queue { return &queue{ctx: ctx, pieces: make(chan []byte, 1)} }

// put waits for room; meanwhile it calls look every now and then.
func (q *queue) put(p []byte, look func()) {
	if q.over {
		return
	}
	t := time.NewTicker(time.Second / 2)
	defer t.Stop()
	for {
		select {
		case q.pieces <- p:
			return
		case <-q.ctx.Done():
			return
		case <-t.C:
			look()
		}
	}
}

// close says that there is no more.
func (q *queue) close() {
	if !q.over {
		q.over = true
		close(q.pieces)
	}
}

// Read implements io.Reader.
func (q *queue) Read(p []byte) (int, error) {
	for len(q.left) == 0 {
		select {
		case piece, more := <-q.pieces:
			if !more {
				return 0, io.EOF
			}
			q.left = piece
		case <-q.ctx.Done():
			return 0, io.EOF
		}
	}
	n := copy(p, q.left)
	q.left = q.left[n:]
	return n, nil
}
