package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/guest/agent/command"
	"github.com/smolvm/smolvm/internal/guest/proto"
)

type execStream = connect.BidiStream[proto.ExecRequest, proto.ExecResponse]

// session is one Exec call. Sending is serialised: both output streams and the end use it.
type session struct {
	stream *execStream
	mu     sync.Mutex
	over   bool // the handler has returned: the stream must not be touched
}

func (s *session) send(r *proto.ExecResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return os.ErrClosed
	}
	return s.stream.Send(r)
}

// Stdout implements command.Sink.
func (s *session) Stdout(p []byte) error {
	return s.send(&proto.ExecResponse{Kind: &proto.ExecResponse_Stdout{Stdout: p}})
}

// Stderr implements command.Sink.
func (s *session) Stderr(p []byte) error {
	return s.send(&proto.ExecResponse{Kind: &proto.ExecResponse_Stderr{Stderr: p}})
}

func (s *session) end(e *proto.ExecExit) error {
	return s.send(&proto.ExecResponse{Kind: &proto.ExecResponse_Exit{Exit: e}})
}

func invalid(format string, args ...any) error {
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, args...))
}

// Exec runs a command.
func (a *Agent) Exec(ctx context.Context, stream *execStream) error {
	a.execBegins()
	defer a.execEnds()
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return invalid("the first message is no start")
	}
	spec, err := specOf(start, stream)
	if err != nil {
		return err
	}
	if spec.ScriptFile != nil {
		defer func() { _ = spec.ScriptFile.Close() }()
	}
	s := &session{stream: stream}
	defer func() {
		s.mu.Lock()
		s.over = true
		s.mu.Unlock()
	}()
	// Held until Started is out, so that it comes before any output.
	s.mu.Lock()
	c, err := a.runner.Start(spec, s)
	if err == nil {
		err = stream.Send(&proto.ExecResponse{Kind: &proto.ExecResponse_Started{
			Started: &proto.ExecStarted{Pid: int32(c.PID())}, //nolint:gosec // pids are below 2^22
		}})
	}
	s.mu.Unlock()
	if serr, ok := errors.AsType[*command.StartError](err); ok {
		return s.end(&proto.ExecExit{ExitCode: int32(serr.Code), Error: serr.Error()}) //nolint:gosec // a small constant
	}
	if c == nil {
		return internal(err)
	}
	go feed(stream, c)
	return s.wait(ctx, c, start.GetOnDisconnectKill())
}

// exitOf tells how a command ended, which it has.
func exitOf(c *command.Command) *proto.ExecExit {
	r := c.Result()
	return &proto.ExecExit{
		ExitCode: int32(r.Code), Signal: int32(r.Signal), //nolint:gosec // both are small
		TimedOut: r.TimedOut, GuestUs: r.Took.Microseconds(),
	}
}

// wait returns when the command has ended, or its host is gone.
func (s *session) wait(ctx context.Context, c *command.Command, kill bool) error {
	select {
	case <-c.Done():
	case <-ctx.Done():
		if kill && !c.Kept() {
			c.Kill()
		}
		return ctx.Err()
	}
	return s.end(exitOf(c))
}

// feed passes on what the host sends until the stream ends, which it does at the latest with the handler.
func feed(stream *execStream, c *command.Command) {
	for {
		m, err := stream.Receive()
		if err != nil {
			if !c.Info().Detached {
				c.CloseStdin()
			}
			return
		}
		switch k := m.GetKind().(type) {
		case *proto.ExecRequest_Stdin:
			c.WriteStdin(k.Stdin)
		case *proto.ExecRequest_StdinEof:
			c.CloseStdin()
		case *proto.ExecRequest_Signal:
			if sig, ok := validSignal(k.Signal); ok {
				_ = c.Signal(sig, false)
			}
		}
	}
}

func validSignal(n int32) (syscall.Signal, bool) { return syscall.Signal(n), n > 0 && n <= 64 }

// specOf makes a command of the first message and, for a long script, of those that follow.
func specOf(m *proto.ExecStart, stream *execStream) (command.Spec, error) {
	size := m.GetScriptSize()
	given := 0
	for _, there := range []bool{len(m.GetArgv()) > 0, m.GetScript() != "", size > 0, m.GetShell()} {
		if there {
			given++
		}
	}
	switch {
	case given != 1:
		return command.Spec{}, invalid("give a command either as arguments or as a script, or ask for a shell")
	case len(m.GetScript()) > proto.InlineShell:
		return command.Spec{}, invalid("a script of %d bytes does not go into start", len(m.GetScript()))
	case size > proto.MaxScript:
		return command.Spec{}, invalid("a script of %d bytes is longer than %d", size, proto.MaxScript)
	case m.GetTimeoutMs() < 0:
		return command.Spec{}, invalid("the timeout is negative")
	case m.GetExecId() == "" || len(m.GetExecId()) > 128:
		return command.Spec{}, invalid("exec_id %q", m.GetExecId())
	}
	spec := command.Spec{
		ID: m.GetExecId(), Argv: m.GetArgv(), Script: m.GetScript(), Login: m.GetLogin(), Env: m.GetEnv(), Dir: m.GetCwd(),
		User: m.GetUser(), Stdin: m.GetStdin(), Timeout: time.Duration(m.GetTimeoutMs()) * time.Millisecond,
		Shell: m.GetShell(), Detach: m.GetDetach(), Main: m.GetMain(),
	}
	if t := m.GetTerminal(); t != nil {
		spec.Terminal = &command.Terminal{Rows: uint16(t.GetRows()), Cols: uint16(t.GetCols()), Term: t.GetTerm()} //nolint:gosec // a size that does not fit is none
	}
	if size == 0 {
		return spec, nil
	}
	var err error
	spec.ScriptFile, err = receiveScript(stream, int64(size)) //nolint:gosec // at most MaxScript
	return spec, err
}

// receiveScript puts the script into a file in memory that nobody can change any more.
func receiveScript(stream *execStream, size int64) (_ *os.File, err error) {
	fd, err := unix.MemfdCreate("script", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, internal(err)
	}
	f := os.NewFile(uintptr(fd), "script") //nolint:gosec // a descriptor
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	for size > 0 {
		m, err := stream.Receive()
		if err != nil {
			return nil, err
		}
		part := m.GetScript()
		if len(part) == 0 || int64(len(part)) > size {
			return nil, invalid("the script's parts do not add up")
		}
		if _, err := f.Write(part); err != nil {
			return nil, internal(err)
		}
		size -= int64(len(part))
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, internal(err)
	}
	return f, nil
}
