package commands

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/server/web"
)

func (r Routes) registerStreams(to huma.API) {
	stream := huma.Operation{
		OperationID: "exec-stream", Method: http.MethodPost, Path: "/v1/sandboxes/{id}/exec/stream", Tags: []string{tag}, MaxBodyBytes: maxBodyBytes,
		Summary: "Run a command and follow its output",
		Description: "Events: started (exec_id, pid), stdout and stderr (data in base64), then exit (how it ended) or error (a problem). " +
			"A client that goes away has its command killed, with all that it started, unless on_disconnect is keep. " +
			"A command whose output is not read waits.",
	}
	web.DescribeEvents(to, &stream, map[string]any{
		api.StreamStarted: api.ProcessInfo{}, "stdout": api.StreamOutput{}, "stderr": api.StreamOutput{}, api.StreamExit: api.ExecResult{},
	})
	web.Raw(to, stream, r.stream)
	socket := huma.Operation{
		OperationID: "exec-socket", Method: http.MethodGet, Path: "/v1/sandboxes/{id}/exec/ws", Tags: []string{tag},
		Summary: "Run a command with its input, terminal and signals by WebSocket",
		Description: "Subprotocol " + api.StreamProtocol + ". The first message is the command (ExecRequest, text). Then binary messages of the client are input, and text messages " +
			"one of {type: stdin_end}, {type: resize, rows, cols}, {type: signal, signal, group}. Binary messages of the server are output, whose first byte is 1 for stdout and " +
			"2 for stderr; text messages are {type: started, exec_id, pid}, and at the end {type: exit, …} or {type: error, …} with a problem's fields. Messages have at most 1 MiB, the first one 64 MiB. " +
			"Input that the command does not read holds up what comes after it, signals too; POST …/processes/{process}/signal is not held up.",
	}
	web.Describe(&socket, http.StatusSwitchingProtocols, nil)
	web.Raw(to, socket, r.socket)
}

type streamInput struct {
	web.VM
	Body api.CommandRequest
}

// stream runs a command and writes events.
func (r Routes) stream(ctx context.Context, in *streamInput, a *web.Answer) error {
	whole := execInput(*in)
	if _, err := whole.check(); err != nil {
		return err
	}
	ctx, cancel := untilStopped(ctx, streamGrace)
	defer cancel()
	var res api.ExecResult
	var events *web.Events
	err := r.on(ctx, in.VM, func(g Guest) (err error) {
		if events == nil {
			events = a.Events()
		}
		res, err = run(ctx, g, whole.Body.ExecRequest, lifecycle.ExecIO{
			Stdin: whole.input(), Stdout: eventWriter{events, "stdout"}, Stderr: eventWriter{events, "stderr"},
			Started: func(p api.ProcessInfo) { events.Try(api.StreamStarted, p) },
		})
		return err
	})
	if events == nil {
		return err
	}
	defer events.Close()
	if err != nil {
		events.Try(api.StreamError, web.ProblemOf(err))
	} else {
		events.Try(api.StreamExit, res)
	}
	return nil
}

// eventWriter makes events of what a command prints.
type eventWriter struct {
	to   *web.Events
	name string
}

// Write implements io.Writer.
func (e eventWriter) Write(p []byte) (int, error) {
	if err := e.to.Send(e.name, api.StreamOutput{Data: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

type socketInput struct {
	web.VM
	Upgrading
}

// socket runs a command that is joined to a WebSocket.
func (r Routes) socket(ctx context.Context, in *socketInput, a *web.Answer) error {
	if err := in.Upgrading.check(); err != nil {
		return err
	}
	if err := r.on(ctx, in.VM, func(Guest) error { return nil }); err != nil {
		return err // with a status, which a message has not
	}
	s := r.accept(ctx, a)
	if s == nil {
		return nil
	}
	var req api.ExecRequest
	var res api.ExecResult
	err := s.first(&req)
	if err == nil {
		over, end := context.WithCancel(s.ctx)
		var q *queue
		if req.Stdin {
			q = newQueue(over)
		}
		s.begin(q)
		err = r.on(s.ctx, in.VM, func(g Guest) (err error) {
			res, err = s.run(over, g, req, q)
			return err
		})
		end()
	}
	s.finish(r, api.StreamExit, res, err)
	return nil
}

// run runs a command whose client is at the other end.
func (s *socket) run(ctx context.Context, g Guest, req api.ExecRequest, q *queue) (api.ExecResult, error) {
	controlling, cancel := context.WithCancel(ctx)
	controlled := make(chan struct{})
	began := false
	streams := lifecycle.ExecIO{Stdout: s.frames(api.StreamStdout), Stderr: s.frames(api.StreamStderr), Started: func(p api.ProcessInfo) {
		s.tell(api.StreamStarted, p)
		began = true
		go func() {
			defer close(controlled)
			s.control(controlling, g, p.ExecID)
		}()
	}}
	if q != nil {
		streams.Stdin = q
	}
	res, err := run(s.ctx, g, req, streams)
	cancel()
	if began {
		<-controlled
	}
	return res, err
}
