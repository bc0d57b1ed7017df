package agent

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"connectrpc.com/connect"

	"github.com/smolvm/smolvm/internal/guest/agent/command"
	"github.com/smolvm/smolvm/internal/guest/agent/output"
	"github.com/smolvm/smolvm/internal/guest/proto"
)

// find returns the command that a request names.
func (a *Agent) find(id string) (*command.Command, error) {
	c, err := a.runner.Find(id)
	switch {
	case errors.Is(err, command.ErrAmbiguous):
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	case err != nil:
		return nil, connect.NewError(connect.CodeNotFound, err)
	}
	return c, nil
}

// Signal sends a signal to a running command.
func (a *Agent) Signal(_ context.Context, req *connect.Request[proto.SignalRequest]) (*connect.Response[proto.SignalResponse], error) {
	sig, ok := validSignal(req.Msg.GetSignal())
	if !ok {
		return nil, invalid("signal %d", req.Msg.GetSignal())
	}
	c, err := a.find(req.Msg.GetExecId())
	if err != nil {
		return nil, err
	}
	if req.Msg.GetGroup() && sig == syscall.SIGKILL && c.Info().Ended.IsZero() {
		c.Kill()
		return connect.NewResponse(&proto.SignalResponse{}), nil
	}
	if err := c.Signal(sig, req.Msg.GetGroup()); err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return connect.NewResponse(&proto.SignalResponse{}), nil
}

// Resize tells a command's terminal its size.
func (a *Agent) Resize(_ context.Context, req *connect.Request[proto.ResizeRequest]) (*connect.Response[proto.ResizeResponse], error) {
	rows, cols := req.Msg.GetRows(), req.Msg.GetCols()
	if rows == 0 || cols == 0 || rows > 0xffff || cols > 0xffff {
		return nil, invalid("a terminal of %d rows and %d columns", rows, cols)
	}
	c, err := a.find(req.Msg.GetExecId())
	if err != nil {
		return nil, err
	}
	if err := c.Resize(uint16(rows), uint16(cols)); err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return connect.NewResponse(&proto.ResizeResponse{}), nil
}

// Keep lets a command outlive its Exec.
func (a *Agent) Keep(_ context.Context, req *connect.Request[proto.KeepRequest]) (*connect.Response[proto.KeepResponse], error) {
	c, err := a.find(req.Msg.GetExecId())
	if err != nil {
		return nil, err
	}
	c.Keep()
	return connect.NewResponse(&proto.KeepResponse{}), nil
}

// process tells of a command.
func process(c *command.Command) *proto.Process {
	i := c.Info()
	p := &proto.Process{
		ExecId: i.ID, Number: i.Number, Pid: int32(c.PID()), Command: i.Line, User: strings.ToValidUTF8(i.User[:min(len(i.User), 64)], ""), //nolint:gosec // pids are below 2^22
		Terminal: i.Terminal, Stdin: i.Stdin, Detached: i.Detached, Main: i.Main, StartedNs: i.Started.UnixNano(),
	}
	p.OutputFrom, p.OutputBytes = c.Output().Bounds()
	if !i.Ended.IsZero() {
		p.EndedNs, p.Exit = i.Ended.UnixNano(), exitOf(c)
	}
	return p
}

// Processes tells of commands.
func (a *Agent) Processes(_ context.Context, req *connect.Request[proto.ProcessesRequest]) (*connect.Response[proto.ProcessesResponse], error) {
	res := &proto.ProcessesResponse{}
	if req.Msg.GetOne() {
		c, err := a.find(req.Msg.GetExecId())
		if err != nil {
			return nil, err
		}
		res.Processes = append(res.Processes, process(c))
		return connect.NewResponse(res), nil
	}
	limit := int(min(req.Msg.GetLimit(), proto.MaxList))
	for _, c := range a.runner.List() {
		if c.Info().Number <= req.Msg.GetAfter() {
			continue
		}
		if len(res.Processes) >= limit {
			res.More = true
			break
		}
		res.Processes = append(res.Processes, process(c))
	}
	return connect.NewResponse(res), nil
}

// Wait answers when a command has ended.
func (a *Agent) Wait(ctx context.Context, req *connect.Request[proto.WaitRequest]) (*connect.Response[proto.WaitResponse], error) {
	c, err := a.find(req.Msg.GetExecId())
	if err != nil {
		return nil, err
	}
	a.execBegins()
	defer a.execEnds()
	select {
	case <-c.Done():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return connect.NewResponse(&proto.WaitResponse{Exit: exitOf(c)}), nil
}

type attachStream = connect.BidiStream[proto.AttachRequest, proto.AttachResponse]

// Attach joins a command.
func (a *Agent) Attach(ctx context.Context, stream *attachStream) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return invalid("the first message is no start")
	}
	c, err := a.find(start.GetExecId())
	if err != nil {
		return err
	}
	a.execBegins()
	defer a.execEnds()
	p := process(c)
	if start.GetOffset() > p.GetOutputBytes() {
		return connect.NewError(connect.CodeOutOfRange, errors.New("the command has not printed that much"))
	}
	if err := stream.Send(&proto.AttachResponse{Kind: &proto.AttachResponse_Begin{Begin: p}}); err != nil {
		return err
	}
	if start.GetStdin() {
		go feedAttached(stream, c)
	}
	limit := p.GetOutputBytes()
	if !start.GetNoFollow() {
		limit = 1<<64 - 1
	}
	if err := replay(ctx, stream, c.Output(), start.GetOffset(), limit); err != nil {
		return err
	}
	if c.Info().Ended.IsZero() && start.GetNoFollow() {
		return nil
	}
	select {
	case <-c.Done():
		return stream.Send(&proto.AttachResponse{Kind: &proto.AttachResponse_Exit{Exit: exitOf(c)}})
	case <-ctx.Done():
		return ctx.Err()
	}
}

// replay sends output from an offset to a limit or the end. Sending waits for the reader; the command does not. Who has much
// to catch up with gets it in larger messages, which cost a third of the time; any number of readers may wait with small ones.
func replay(ctx context.Context, stream *attachStream, log *output.Log, at, limit uint64) error {
	small := make([]byte, proto.ChunkSize)
	buf := small
	if _, to := log.Bounds(); min(to, limit) > at+4*proto.ChunkSize {
		buf = make([]byte, proto.ReplaySize)
	}
	for at < limit {
		p := log.Read(at, buf[:min(uint64(len(buf)), limit-at)])
		m := &proto.AttachResponse{}
		switch {
		case p.Gap > 0:
			p.Gap = min(p.Gap, limit-at)
			m.Kind = &proto.AttachResponse_Gap{Gap: p.Gap}
		case p.Stream == output.Stdout:
			m.Kind = &proto.AttachResponse_Stdout{Stdout: buf[:p.N]}
		case p.Stream == output.Stderr:
			m.Kind = &proto.AttachResponse_Stderr{Stderr: buf[:p.N]}
		case p.Ended:
			return nil
		default:
			buf = small
			select {
			case <-p.More:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := stream.Send(m); err != nil {
			return err
		}
		at += uint64(p.N) + p.Gap
	}
	return nil
}

// feedAttached passes input on until the stream ends; the command's input goes on unless that is said.
func feedAttached(stream *attachStream, c *command.Command) {
	for {
		m, err := stream.Receive()
		if err != nil {
			return
		}
		switch k := m.GetKind().(type) {
		case *proto.AttachRequest_Stdin:
			c.WriteStdin(k.Stdin)
		case *proto.AttachRequest_StdinEof:
			c.CloseStdin()
		}
	}
}
