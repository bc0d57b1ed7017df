package client

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/proto"
)

// Streams join a command to its caller. Nil writers discard.
type Streams struct {
	// Stdin is read only when ExecStart.Stdin is set. A Read that does not return is left behind when the command ends.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Started        func(pid int) // may be nil
}

type execStream = connect.BidiStreamForClient[proto.ExecRequest, proto.ExecResponse]

// Exec runs a command and returns how it ended. start.Script may be as long as MaxScript. When ctx ends the stream is
// dropped, and with OnDisconnectKill the command killed. An error means that the command's end is not known; a command
// that could not be started is no error.
func (c *Client) Exec(ctx context.Context, start *proto.ExecStart, s Streams) (*proto.ExecExit, error) {
	if start.GetTerminal() != nil || start.GetShell() || start.GetDetach() {
		if err := c.knowsProcesses(); err != nil {
			return nil, err
		}
	}
	call, cancel := context.WithCancel(ctx)
	defer cancel() // drops the stream, and ends sending, on every way out
	stream := c.rpc.Exec(call)
	first, script, err := split(start)
	if err != nil {
		return nil, err
	}
	// The transport does not look at the context while it waits for what is to be sent.
	defer context.AfterFunc(call, func() { _ = stream.CloseRequest() })()
	sendErr := make(chan error, 1)
	go func() { sendErr <- send(stream, first, script, s.Stdin) }()
	exit, err := receive(stream, s)
	if err == nil {
		_ = stream.CloseResponse()
		return exit, nil
	}
	if _, ours := errors.AsType[*errdefs.Error](err); !ours {
		err = c.classify(ctx, "run the command", err)
	}
	cancel()
	select {
	case serr := <-sendErr:
		if e, ok := errors.AsType[*stdinError](serr); ok {
			return nil, errdefs.Invalid.Errorf("read the command's input: %w", e.err)
		}
	default:
	}
	return nil, err
}

// split takes a script that is too long for a message out of start.
func split(start *proto.ExecStart) (*proto.ExecStart, string, error) {
	script := start.GetScript()
	if len(script) <= proto.InlineShell {
		return start, "", nil
	}
	if len(script) > proto.MaxScript {
		return nil, "", errdefs.Invalid.Errorf("the script has %d bytes, more than %d", len(script), proto.MaxScript)
	}
	first, ok := protobuf.Clone(start).(*proto.ExecStart)
	if !ok {
		return nil, "", errdefs.Internal.Errorf("copy the command")
	}
	first.Script, first.ScriptSize = "", uint64(len(script))
	return first, script, nil
}

// stdinError tells a failure of the caller's reader from one of the stream.
type stdinError struct{ err error }

func (e *stdinError) Error() string { return e.err.Error() }

// send sends the command and its input. Its error matters only where receiving failed too.
func send(stream *execStream, first *proto.ExecStart, script string, stdin io.Reader) error {
	if err := stream.Send(&proto.ExecRequest{Kind: &proto.ExecRequest_Start{Start: first}}); err != nil {
		return err
	}
	for script != "" {
		n := min(len(script), proto.MaxMessage/4)
		part := &proto.ExecRequest{Kind: &proto.ExecRequest_Script{Script: []byte(script[:n])}}
		if err := stream.Send(part); err != nil {
			return err
		}
		script = script[n:]
	}
	if first.GetStdin() && stdin != nil {
		if err := copyIn(stream, stdin); err != nil {
			return err
		}
	}
	return stream.CloseRequest()
}

func copyIn(stream *execStream, stdin io.Reader) error {
	buf := make([]byte, proto.ChunkSize)
	for {
		n, err := stdin.Read(buf)
		if n > 0 {
			m := &proto.ExecRequest{Kind: &proto.ExecRequest_Stdin{Stdin: buf[:n]}}
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &stdinError{err}
		}
	}
}

// receive passes output on until the command's end.
func receive(stream *execStream, s Streams) (*proto.ExecExit, error) {
	for {
		m, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil, errdefs.Unavailable.Errorf("run the command: the guest did not say how it ended")
		}
		if err != nil {
			return nil, err
		}
		switch k := m.GetKind().(type) {
		case *proto.ExecResponse_Started:
			if s.Started != nil {
				s.Started(int(k.Started.GetPid()))
			}
		case *proto.ExecResponse_Stdout:
			err = deliver(s.Stdout, k.Stdout)
		case *proto.ExecResponse_Stderr:
			err = deliver(s.Stderr, k.Stderr)
		case *proto.ExecResponse_Exit:
			return k.Exit, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func deliver(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	if _, err := w.Write(p); err != nil {
		return errdefs.Unavailable.Errorf("pass the command's output on: %w", err)
	}
	return nil
}
