package client

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/proto"
)

// knowsProcesses refuses what the guest's agent is too old for.
func (c *Client) knowsProcesses() error {
	if c.hello.GetProtocolMax() < proto.VersionProcesses {
		return errdefs.Unavailable.Errorf("the guest's agent speaks protocol %d, which has no terminals and keeps no commands", c.hello.GetProtocolMax()).
			WithRemedy("stop and start the VM: it then gets this program's agent")
	}
	return nil
}

// Start starts a command that goes on by itself and returns its process's id, or how it could not be started.
func (c *Client) Start(ctx context.Context, start *proto.ExecStart) (pid int, failed *proto.ExecExit, err error) {
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	start.OnDisconnectKill, start.Detach = false, true
	exit, err := c.Exec(call, start, Streams{Started: func(p int) {
		pid = p
		cancel() // it lives on without the stream
	}})
	switch {
	case pid != 0:
		return pid, nil, nil
	case err != nil:
		return 0, nil, err
	}
	return 0, exit, nil
}

// Resize tells a command's terminal its size.
func (c *Client) Resize(ctx context.Context, execID string, rows, cols uint32) error {
	_, err := unary(ctx, c, "resize the terminal", c.rpc.Resize, &proto.ResizeRequest{ExecId: execID, Rows: rows, Cols: cols})
	return err
}

// Keep lets a command outlive the Exec that started it.
func (c *Client) Keep(ctx context.Context, execID string) error {
	_, err := unary(ctx, c, "keep the command", c.rpc.Keep, &proto.KeepRequest{ExecId: execID})
	return err
}

// Wait returns how a command ended, once it has.
func (c *Client) Wait(ctx context.Context, execID string) (*proto.ExecExit, error) {
	res, err := unary(ctx, c, "wait for the command", c.rpc.Wait, &proto.WaitRequest{ExecId: execID})
	return res.GetExit(), err
}

// Process tells of one command; an empty id is the main one, or the only one that runs.
func (c *Client) Process(ctx context.Context, execID string) (*proto.Process, error) {
	res, err := unary(ctx, c, "find the command", c.rpc.Processes, &proto.ProcessesRequest{One: true, ExecId: execID})
	if err == nil && len(res.GetProcesses()) != 1 {
		err = errdefs.Internal.Errorf("find the command: the guest answered with %d", len(res.GetProcesses()))
	}
	if err != nil {
		return nil, err
	}
	return res.GetProcesses()[0], nil
}

// MaxProcesses bounds a listing of commands.
const MaxProcesses = 40_000

// Processes tells of the commands that run or are remembered, in the order of their start.
func (c *Client) Processes(ctx context.Context) ([]*proto.Process, error) {
	var all []*proto.Process
	var after uint64
	for {
		page, err := unary(ctx, c, "list commands", c.rpc.Processes, &proto.ProcessesRequest{After: after, Limit: proto.MaxList})
		if err != nil {
			return nil, err
		}
		for _, p := range page.GetProcesses() {
			if p.GetNumber() <= after {
				return nil, errdefs.Internal.Errorf("list commands: the guest's are not in order")
			}
			after = p.GetNumber()
		}
		if all = append(all, page.GetProcesses()...); len(all) > MaxProcesses {
			return nil, errdefs.Exhausted.Errorf("list commands: there are more than %d", MaxProcesses)
		}
		if !page.GetMore() || len(page.GetProcesses()) == 0 {
			return all, nil
		}
	}
}

// Attachment joins a caller to a command that runs. Nil writers discard.
type Attachment struct {
	// Stdin is read only when AttachStart.Stdin is set; its end is not that of the command's input. A Read that does not
	// return is left behind.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Began          func(*proto.Process) error
	Gap            func(uint64) error // so many bytes of output are gone
}

type attachStream = connect.BidiStreamForClient[proto.AttachRequest, proto.AttachResponse]

// Attach passes a command's output on until it has ended, and returns how; nil when it still runs and start.NoFollow is
// set.
func (c *Client) Attach(ctx context.Context, start *proto.AttachStart, a Attachment) (*proto.ExecExit, error) {
	if err := c.knowsProcesses(); err != nil {
		return nil, err
	}
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.rpc.Attach(call)
	defer context.AfterFunc(call, func() { _ = stream.CloseRequest() })() // see Exec
	go sendAttached(stream, start, a.Stdin)
	exit, err := receiveAttached(stream, a)
	if err == nil {
		_ = stream.CloseResponse()
		return exit, nil
	}
	if _, ours := errors.AsType[*errdefs.Error](err); !ours {
		err = c.classify(ctx, "attach to the command", err)
	}
	return nil, err
}

// sendAttached sends what the command is to read. What goes wrong, receiving tells.
func sendAttached(stream *attachStream, start *proto.AttachStart, stdin io.Reader) {
	if stream.Send(&proto.AttachRequest{Kind: &proto.AttachRequest_Start{Start: start}}) != nil {
		return
	}
	if start.GetStdin() && stdin != nil {
		buf := make([]byte, proto.ChunkSize)
		for {
			n, err := stdin.Read(buf)
			if n > 0 && stream.Send(&proto.AttachRequest{Kind: &proto.AttachRequest_Stdin{Stdin: buf[:n]}}) != nil {
				return
			}
			if err != nil {
				break
			}
		}
	}
	_ = stream.CloseRequest()
}

func receiveAttached(stream *attachStream, a Attachment) (*proto.ExecExit, error) {
	began := false
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) && began {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if _, ok := m.GetKind().(*proto.AttachResponse_Begin); ok == began {
			return nil, errdefs.Internal.Errorf("attach to the command: the guest's answers are not in order")
		}
		began = true
		switch k := m.GetKind().(type) {
		case *proto.AttachResponse_Begin:
			err = a.Began(k.Begin)
		case *proto.AttachResponse_Stdout:
			err = deliver(a.Stdout, k.Stdout)
		case *proto.AttachResponse_Stderr:
			err = deliver(a.Stderr, k.Stderr)
		case *proto.AttachResponse_Gap:
			err = a.Gap(k.Gap)
		case *proto.AttachResponse_Exit:
			return k.Exit, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
