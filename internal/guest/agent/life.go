package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/guest/agent/command"
	"github.com/smolvm/smolvm/internal/guest/proto"
)

// Hello tells who is here. A higher epoch than ours stops everything until Resumed.
func (a *Agent) Hello(_ context.Context, req *connect.Request[proto.HelloRequest]) (*connect.Response[proto.HelloResponse], error) {
	m := req.Msg
	if m.GetProtocolMin() > proto.VersionMax || m.GetProtocolMax() < proto.VersionMin {
		return nil, connect.NewError(connect.CodeUnimplemented, fmt.Errorf(
			"the host speaks protocols %d to %d, this agent %d to %d",
			m.GetProtocolMin(), m.GetProtocolMax(), proto.VersionMin, proto.VersionMax))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if m.GetEpoch() > a.epoch && !a.pending {
		if a.runner != nil {
			if err := a.runner.Freeze(); err != nil {
				return nil, internal(err)
			}
		}
		a.pending = true
	}
	return connect.NewResponse(&proto.HelloResponse{
		Build: a.opts.Build, ProtocolMin: proto.VersionMin, ProtocolMax: proto.VersionMax,
		KernelRelease: release(), Configured: a.configured, ResumePending: a.pending, UptimeUs: uptime().Microseconds(),
	}), nil
}

func release() string {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return ""
	}
	return unix.ByteSliceToString(uts.Release[:])
}

func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Configure makes the guest who it is to be, once.
func (a *Agent) Configure(_ context.Context, req *connect.Request[proto.ConfigureRequest]) (*connect.Response[proto.ConfigureResponse], error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.configured:
		return nil, connect.NewError(connect.CodeFailedPrecondition, errConfigured)
	case a.pending:
		return nil, connect.NewError(connect.CodeFailedPrecondition, errPending)
	case a.failed != nil:
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("configuring failed before: %w", a.failed))
	}
	begun := uptime() // no wall clock: it is set meanwhile
	res := &proto.ConfigureResponse{}
	runner := command.New()
	if a.opts.System != nil {
		var err error
		if res.DiskBytes, runner, err = a.opts.System.Configure(req.Msg); err != nil {
			a.failed = err
			return nil, internal(err)
		}
	}
	// A ring that grows is there twice for a moment.
	if room := command.OutputRoom(req.Msg.GetOutputBytes()); room > 0 && a.opts.System != nil {
		debug.SetMemoryLimit(memoryLimit + int64(room) + int64(req.Msg.GetOutputBytes()))
	}
	runner.KeepOutput(req.Msg.GetOutputBytes())
	runner.SetDefaults(command.Defaults{Env: req.Msg.GetEnv(), Dir: req.Msg.GetWorkdir(), User: req.Msg.GetUser()})
	a.runner, a.configured = runner, true
	res.TookUs = (uptime() - begun).Microseconds()
	return connect.NewResponse(res), nil
}

// Resumed ends the wait that a new epoch began.
func (a *Agent) Resumed(_ context.Context, req *connect.Request[proto.ResumedRequest]) (*connect.Response[proto.ResumedResponse], error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	epoch := req.Msg.GetEpoch()
	if !a.pending || epoch <= a.epoch {
		return nil, connect.NewError(connect.CodeFailedPrecondition,
			fmt.Errorf("epoch %d was not announced, this is %d", epoch, a.epoch))
	}
	if err := a.resume(req.Msg); err != nil {
		return nil, internal(err)
	}
	a.epoch, a.pending = epoch, false
	return connect.NewResponse(&proto.ResumedResponse{Epoch: epoch}), nil
}

// resume makes the guest who it is now. Where that fails everything stands still again.
func (a *Agent) resume(m *proto.ResumedRequest) error {
	if a.opts.System != nil {
		if err := a.opts.System.Resumed(m); err != nil {
			return err
		}
	}
	if a.runner == nil {
		return nil
	}
	err := a.runner.Thaw()
	if err == nil && a.opts.System != nil {
		err = a.opts.System.Awake()
	}
	if err != nil {
		return errors.Join(err, a.runner.Freeze())
	}
	return nil
}

// Ping gives back what it got.
func (a *Agent) Ping(_ context.Context, req *connect.Request[proto.PingRequest]) (*connect.Response[proto.PingResponse], error) {
	return connect.NewResponse(&proto.PingResponse{Payload: req.Msg.GetPayload()}), nil
}

// Sync writes all file systems back.
func (a *Agent) Sync(context.Context, *connect.Request[proto.SyncRequest]) (*connect.Response[proto.SyncResponse], error) {
	unix.Sync()
	return connect.NewResponse(&proto.SyncResponse{}), nil
}

const maxGrace = time.Minute

// Shutdown ends all commands, writes everything back and has the machine switched off when the host has its answer.
func (a *Agent) Shutdown(_ context.Context, req *connect.Request[proto.ShutdownRequest]) (*connect.Response[proto.ShutdownResponse], error) {
	a.mu.Lock()
	runner := a.runner
	a.mu.Unlock()
	if runner != nil {
		_ = runner.Thaw()
		grace := time.Duration(max(req.Msg.GetGraceMs(), 0)) * time.Millisecond
		runner.Shutdown(min(grace, maxGrace))
		a.awaitExecs()
	}
	if a.opts.System != nil {
		a.opts.System.Shutdown()
	}
	a.powerOff()
	return connect.NewResponse(&proto.ShutdownResponse{}), nil
}

func internal(err error) error {
	code := connect.CodeInternal
	var errno syscall.Errno
	if errors.As(err, &errno) && errno == syscall.ENOSPC {
		code = connect.CodeResourceExhausted
	}
	return connect.NewError(code, err)
}
