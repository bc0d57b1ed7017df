package relay

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/excerpt"
	"github.com/smolvm/smolvm/internal/sys/fault"
)

// command makes the agent's request of a user's.
func command(req api.ExecRequest) *proto.ExecStart {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	start := &proto.ExecStart{
		Argv: req.Argv, Script: req.Script, Login: req.Login, Env: req.Env, Cwd: req.Cwd, User: req.User, Stdin: req.Stdin,
		TimeoutMs: req.TimeoutMs, OnDisconnectKill: req.OnDisconnect != api.DisconnectKeep, ExecId: hex.EncodeToString(b[:]),
		Shell: req.Shell, Main: req.Main,
	}
	if t := req.TTY; t != nil {
		start.Terminal = &proto.Terminal{Rows: uint32(t.Rows), Cols: uint32(t.Cols), Term: t.Term}
	}
	return start
}

// result makes the user's answer of an agent's. The agent is not trusted.
func result(x *proto.ExecExit) api.ExecResult {
	r := api.ExecResult{
		ExitCode: int(x.GetExitCode()), TimedOut: x.GetTimedOut(), Error: excerpt.Cut(x.GetError(), 4096), GuestMicros: max(0, x.GetGuestUs()),
	}
	if r.ExitCode < 0 || r.ExitCode > 255 {
		r.ExitCode = 255
	}
	if n := x.GetSignal(); n != 0 {
		r.Signal = unix.SignalName(syscall.Signal(n))
	}
	return r
}

// exec runs a command for a client that waits for it.
func (r *Relay) exec(ctx context.Context, req api.ExecRequest, streams rpc.ExecIO) (api.ExecResult, error) {
	if err := req.Validate(); err != nil {
		return api.ExecResult{}, err
	}
	guest, err := r.agent(ctx)
	if err != nil {
		return api.ExecResult{}, err
	}
	start := command(req)
	to := client.Streams{
		Stdin: streams.Stdin, Stdout: streams.Stdout, Stderr: streams.Stderr,
		Started: func(pid int) {
			fault.Point("relay.started")
			streams.Started(api.ProcessInfo{ExecID: start.GetExecId(), PID: pid})
		},
	}
	fault.Point("relay.exec")
	if req.OnDisconnect == api.DisconnectKeep {
		// It goes on when the client is gone: nobody reads, nobody writes.
		ctx = context.WithoutCancel(ctx)
		to.Stdin, to.Stdout, to.Stderr = quietReader{to.Stdin}, quietWriter{to.Stdout}, quietWriter{to.Stderr}
	}
	if req.Main {
		log, err := r.opts.Output()
		if err != nil {
			return api.ExecResult{}, err
		}
		to.Stdout, to.Stderr = io.MultiWriter(log, to.Stdout), io.MultiWriter(log, to.Stderr)
	}
	exit, err := guest.Exec(ctx, start, to)
	if err != nil {
		return api.ExecResult{}, r.lost(err)
	}
	return result(exit), nil
}

// lost says of an error on the link what became of the VM, where that is the reason.
func (r *Relay) lost(err error) error {
	if err == nil || !errdefs.Is(err, errdefs.Unavailable) {
		return err
	}
	reason, ended := r.opts.Ended()
	if !ended {
		return err
	}
	return errdefs.Unavailable.Errorf("the VM %s ended: %s", r.opts.ID, reason).WithRemedy("smolvm logs --console %s", r.opts.ID)
}

// quietReader ends where its reader fails.
type quietReader struct{ r io.Reader }

func (q quietReader) Read(p []byte) (int, error) {
	if q.r == nil {
		return 0, io.EOF
	}
	n, err := q.r.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

// quietWriter takes what its writer does not.
type quietWriter struct{ w io.Writer }

func (q quietWriter) Write(p []byte) (int, error) {
	if q.w != nil {
		_, _ = q.w.Write(p)
	}
	return len(p), nil
}

// start runs a command that nobody waits for, and returns once it runs.
func (r *Relay) start(ctx context.Context, req api.ExecRequest) (api.ProcessInfo, error) {
	if err := req.Validate(); err != nil {
		return api.ProcessInfo{}, err
	}
	guest, err := r.agent(ctx)
	if err != nil {
		return api.ProcessInfo{}, err
	}
	req.OnDisconnect = api.DisconnectKeep
	cmd := command(req)
	cmd.Detach = true
	info := api.ProcessInfo{ExecID: cmd.GetExecId()}
	if req.Main {
		info.PID, err = r.startMain(ctx, guest, cmd)
		return info, err
	}
	pid, failed, err := guest.Start(ctx, cmd)
	if err == nil && failed != nil {
		err = notStarted(failed)
	}
	info.PID = pid
	return info, r.lost(err)
}

// startMain starts the VM's main command, whose output goes to the VM's log, and whose end is written down.
func (r *Relay) startMain(ctx context.Context, guest *client.Client, cmd *proto.ExecStart) (pid int, err error) {
	log, err := r.opts.Output()
	if err != nil {
		return 0, err
	}
	started := make(chan int, 1)
	to := client.Streams{Started: func(pid int) { started <- pid }, Stdout: log, Stderr: log}
	done := make(chan error, 1)
	go func() {
		exit, err := guest.Exec(context.WithoutCancel(ctx), cmd, to)
		if err == nil {
			err = notStarted(exit)
		}
		r.noteEnd(exit, err)
		done <- err
	}()
	select {
	case pid = <-started:
		return pid, nil
	case err := <-done:
		select {
		case pid = <-started: // it was quick
			return pid, nil
		default:
		}
		if err == nil {
			err = errdefs.Internal.Errorf("the guest did not say that the command was started")
		}
		return 0, err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// notStarted makes an error of a command that could not be started.
func notStarted(x *proto.ExecExit) error {
	switch {
	case x.GetError() == "":
		return nil
	case x.GetExitCode() == 127:
		return errdefs.NotFound.Errorf("%s", excerpt.Cut(x.GetError(), 4096))
	default:
		return errdefs.Invalid.Errorf("%s", excerpt.Cut(x.GetError(), 4096))
	}
}

// noteEnd writes the end of the VM's main command down.
func (r *Relay) noteEnd(exit *proto.ExecExit, err error) {
	e := api.Event{Type: "exec", Attrs: map[string]string{"main": "true"}}
	if err != nil {
		e.Reason = excerpt.Printable(excerpt.Cut(err.Error(), 1000))
	} else {
		res := result(exit)
		e.Reason = "the main command ended"
		e.Attrs["exit_code"] = strconv.Itoa(res.ExitCode)
		if res.Signal != "" {
			e.Attrs["signal"] = res.Signal
		}
	}
	r.opts.MainEnded(e)
}
