package commands

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/server/web"
)

const (
	processes = "/v1/sandboxes/{id}/processes"
	process   = processes + "/{process}"
)

// Named is what operations on one command have in their path.
type Named struct {
	web.VM
	Process string `path:"process" doc:"the command's exec_id, or the beginning of it where no other one begins so" example:"3f9a" maxLength:"128"`
}

func (r Routes) registerProcesses(to huma.API) {
	op := func(id, method, path, summary, description string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Tags: []string{tag}, Summary: summary, Description: description}
	}
	none := func(op huma.Operation) huma.Operation {
		op.DefaultStatus = http.StatusNoContent
		return op
	}
	web.Register(to, op("list-processes", http.MethodGet, processes, "List the commands that run or are remembered", ""), r.list)
	start := op("start-process", http.MethodPost, processes, "Start a command that outlives its client", "It returns once the command runs. Its output is kept, to a limit, for output and ws.")
	start.DefaultStatus, start.MaxBodyBytes = http.StatusCreated, maxBodyBytes
	web.Register(to, start, r.start)
	web.Register(to, op("get-process", http.MethodGet, process, "Tell of one command", ""), r.get)
	web.Register(to, op("wait-process", http.MethodPost, process+"/wait", "Wait for a command's end", "A timeout leaves the command alone."), r.wait)
	web.Register(to, none(op("signal-process", http.MethodPost, process+"/signal", "Send a signal to a command", "With group to all that it started; SIGKILL then ends also what has left its process group.")), r.signal)
	web.Register(to, none(op("resize-process", http.MethodPost, process+"/resize", "Tell a command's terminal its size", "")), r.resize)
	output := op("process-output", http.MethodGet, process+"/output", "Read what a command has printed",
		"Events: process (the command), stdout and stderr (data in base64; offset: where to go on after it), gap (bytes that are not kept any more), and at the end "+
			"exit (how the command ended, and the offset), end (it goes on, and follow is not set) or error (a problem). A client that leaves leaves the command alone.")
	web.DescribeEvents(to, &output, map[string]any{
		api.StreamProcess: api.Process{}, "stdout": api.StreamOutput{}, "stderr": api.StreamOutput{}, api.StreamGap: api.StreamOutput{},
		api.StreamExit: api.AttachEnd{}, api.StreamEnd: api.StreamOutput{},
	})
	web.Raw(to, output, r.output)
	socket := op("process-socket", http.MethodGet, process+"/ws", "Join a command by WebSocket",
		"As exec/ws, without a first message; also {type: process, …} and {type: gap, bytes}, and exit has an offset. A client that leaves leaves the command alone, and the end of its input is not that of the command's.")
	web.Describe(&socket, http.StatusSwitchingProtocols, nil)
	web.Raw(to, socket, r.attach)
}

func (r Routes) list(ctx context.Context, in *web.VM) (*web.Body[api.ProcessList], error) {
	out := api.ProcessList{Processes: []api.Process{}}
	err := r.on(ctx, *in, func(g Guest) error {
		all, err := g.Processes(ctx)
		out.Processes = append(out.Processes, all...)
		return err
	})
	return &web.Body[api.ProcessList]{Body: out}, err
}

type startInput struct {
	web.VM
	Body api.ExecRequest
}

func (r Routes) start(ctx context.Context, in *startInput) (*web.Body[api.ProcessInfo], error) {
	if err := in.Body.Validate(); err != nil {
		return nil, err
	}
	out := new(web.Body[api.ProcessInfo])
	err := r.on(ctx, in.VM, func(g Guest) (err error) {
		out.Body, err = g.StartDetached(ctx, in.Body)
		return err
	})
	return out, err
}

func (r Routes) get(ctx context.Context, in *Named) (*web.Body[api.Process], error) {
	out := new(web.Body[api.Process])
	err := r.on(ctx, in.VM, func(g Guest) (err error) {
		out.Body, err = g.Process(ctx, in.Process)
		return err
	})
	return out, err
}

type waitInput struct {
	Named
	TimeoutMs int64 `query:"timeout_ms" minimum:"0" doc:"how long to wait; 0 = as long as it takes"`
}

func (r Routes) wait(ctx context.Context, in *waitInput) (*web.Body[api.ExecResult], error) {
	if in.TimeoutMs < 0 {
		return nil, errdefs.Invalid.Errorf("timeout_ms: %d is negative", in.TimeoutMs)
	}
	ctx, cancel := untilStopped(ctx, answerGrace)
	defer cancel()
	if wait := time.Duration(in.TimeoutMs) * time.Millisecond; wait > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, wait, errdefs.Timeout.Errorf("the command %s still runs after %s", in.Process, wait))
		defer stop()
	}
	out := new(web.Body[api.ExecResult])
	err := r.on(ctx, in.VM, func(g Guest) (err error) {
		out.Body, err = g.Wait(ctx, in.Process)
		return err
	})
	return out, err
}

type signalInput struct {
	Named
	Body struct {
		Signal signalName `json:"signal" required:"true"`
		Group  bool       `json:"group,omitempty" doc:"to all that the command started"`
	}
}

func (r Routes) signal(ctx context.Context, in *signalInput) (*struct{}, error) {
	n, err := signalNumber(string(in.Body.Signal))
	if err != nil {
		return nil, err
	}
	return nil, r.on(ctx, in.VM, func(g Guest) error { return g.Signal(ctx, in.Process, n, in.Body.Group) })
}

type resizeInput struct {
	Named
	Body api.TerminalSize
}

func (r Routes) resize(ctx context.Context, in *resizeInput) (*struct{}, error) {
	if in.Body.Rows == 0 || in.Body.Cols == 0 {
		return nil, errdefs.Invalid.Errorf("a terminal of %d rows and %d columns", in.Body.Rows, in.Body.Cols)
	}
	return nil, r.on(ctx, in.VM, func(g Guest) error { return g.Resize(ctx, in.Process, in.Body) })
}

type outputInput struct {
	Named
	Offset uint64 `query:"offset" doc:"where to begin"`
	Follow bool   `query:"follow" doc:"wait for what comes, until the command's end"`
}

// output writes what a command has printed as events. What is wrong with the request is told before they begin.
func (r Routes) output(ctx context.Context, in *outputInput, a *web.Answer) error {
	ctx, cancel := untilStopped(ctx, streamGrace)
	defer cancel()
	var events *web.Events
	var res api.AttachResult
	at := in.Offset
	err := r.on(ctx, in.VM, func(g Guest) (err error) {
		req := api.AttachRequest{Process: in.Process, Offset: in.Offset, NoFollow: !in.Follow}
		out, errs := &placed{name: "stdout", at: &at}, &placed{name: "stderr", at: &at}
		res, err = g.Attach(ctx, req, lifecycle.AttachIO{
			ExecIO: lifecycle.ExecIO{Stdout: out, Stderr: errs},
			Began: func(p api.Process) {
				events = a.Events()
				out.to, errs.to = events, events
				events.Try(api.StreamProcess, p)
			},
			Gap: func(n uint64) {
				at += n
				events.Try(api.StreamGap, api.StreamOutput{Bytes: n, Offset: &at})
			},
		})
		return err
	})
	if events == nil {
		return err
	}
	defer events.Close()
	switch {
	case err != nil:
		events.Try(api.StreamError, web.ProblemOf(err))
	case res.Result == nil:
		events.Try(api.StreamEnd, api.StreamOutput{Offset: &res.Offset})
	default:
		events.Try(api.StreamExit, api.AttachEnd{ExecResult: *res.Result, Offset: res.Offset})
	}
	return nil
}

// placed makes events of output that say where the output goes on.
type placed struct {
	to   *web.Events
	name string
	at   *uint64
}

// Write implements io.Writer.
func (p *placed) Write(b []byte) (int, error) {
	*p.at += uint64(len(b))
	if err := p.to.Send(p.name, api.StreamOutput{Data: b, Offset: p.at}); err != nil {
		return 0, err
	}
	return len(b), nil
}

type attachInput struct {
	Named
	Upgrading
	Offset uint64 `query:"offset" doc:"where in its output to begin"`
	Stdin  bool   `query:"stdin" doc:"pass input on"`
}

// attach joins a client to a command.
func (r Routes) attach(ctx context.Context, in *attachInput, a *web.Answer) error {
	if err := in.Upgrading.check(); err != nil {
		return err
	}
	if err := r.on(ctx, in.VM, func(g Guest) error {
		p, err := g.Process(ctx, in.Process)
		in.Process = p.ExecID
		return err
	}); err != nil {
		return err
	}
	s := r.accept(ctx, a)
	if s == nil {
		return nil
	}
	over, end := context.WithCancel(s.ctx)
	var q *queue
	if in.Stdin {
		q = newQueue(over)
	}
	s.begin(q)
	var res api.AttachResult
	err := r.on(s.ctx, in.VM, func(g Guest) (err error) {
		res, err = s.join(over, g, in, q)
		return err
	})
	end()
	if err == nil && res.Result == nil {
		err = errdefs.Unavailable.Errorf("the command %s cannot be followed any more", in.Process)
	}
	var exit api.AttachEnd
	if err == nil {
		exit = api.AttachEnd{ExecResult: *res.Result, Offset: res.Offset}
	}
	s.finish(r, api.StreamExit, exit, err)
	return nil
}

// join passes a command's output and input on until its end.
func (s *socket) join(ctx context.Context, g Guest, in *attachInput, q *queue) (api.AttachResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	controlled := make(chan struct{})
	began := false
	defer func() {
		cancel()
		if began {
			<-controlled
		}
	}()
	io := lifecycle.ExecIO{Stdout: s.frames(api.StreamStdout), Stderr: s.frames(api.StreamStderr)}
	if q != nil {
		io.Stdin = q
	}
	return g.Attach(ctx, api.AttachRequest{Process: in.Process, Offset: in.Offset, Stdin: in.Stdin}, lifecycle.AttachIO{
		ExecIO: io,
		Began: func(p api.Process) {
			s.tell(api.StreamProcess, p)
			began = true
			go func() {
				defer close(controlled)
				s.control(ctx, g, p.ExecID)
			}()
		},
		Gap: func(n uint64) { s.tell(api.StreamGap, api.StreamOutput{Bytes: n}) },
	})
}
