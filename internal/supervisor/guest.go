package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/capfile"
)

// relink bounds the making of a new link to a guest that was there before.
const relink = 10 * time.Second

// agent returns the link to the guest, made anew when it was lost.
func (s *supervisor) agent(ctx context.Context) (*client.Client, error) {
	guest, err := s.linked()
	if err != nil || !ended(guest) {
		return guest, err
	}
	s.redial.Lock()
	defer s.redial.Unlock()
	guest, err = s.linked() // another one may have made it
	if err != nil || !ended(guest) {
		return guest, err
	}
	machine := s.running()
	if machine == nil {
		return nil, errdefs.Unavailable.Errorf("the VM %s has ended", s.id).WithRemedy("smolvm inspect %s", s.id)
	}
	ctx, cancel := context.WithTimeout(ctx, relink)
	defer cancel()
	fresh, err := client.New(ctx, machine.DialGuest)
	if err != nil {
		return nil, errdefs.Unavailable.Errorf("the guest's agent does not answer: %w", err).WithRemedy("smolvm logs --console %s", s.id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine == nil {
		_ = fresh.Close()
		return nil, errdefs.Unavailable.Errorf("the VM %s has ended", s.id).WithRemedy("smolvm inspect %s", s.id)
	}
	_ = s.guest.Close()
	s.guest = fresh
	return fresh, nil
}

func ended(c *client.Client) bool {
	select {
	case <-c.Gone():
		return true
	default:
		return false
	}
}

// linked returns the present link, if the VM's state lets commands through.
func (s *supervisor) linked() (*client.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.State == api.StateRunning && s.guest != nil {
		return s.guest, nil
	}
	err := errdefs.WrongState.Errorf("the VM %s is %s", s.id, s.state.State)
	if s.state.State == api.StatePaused {
		return nil, err.WithRemedy("smolvm unpause %s", s.id)
	}
	return nil, err.WithRemedy("smolvm inspect %s", s.id)
}

// command makes the agent's request of a user's.
func command(req api.ExecRequest) *proto.ExecStart {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return &proto.ExecStart{
		Argv: req.Argv, Script: req.Script, Login: req.Login, Env: req.Env, Cwd: req.Cwd, User: req.User, Stdin: req.Stdin,
		TimeoutMs: req.TimeoutMs, OnDisconnectKill: req.OnDisconnect != api.DisconnectKeep, ExecId: hex.EncodeToString(b[:]),
	}
}

// result makes the user's answer of an agent's. The agent is not trusted.
func result(x *proto.ExecExit) api.ExecResult {
	r := api.ExecResult{
		ExitCode: int(x.GetExitCode()), TimedOut: x.GetTimedOut(), Error: cut(x.GetError(), 4096), GuestMicros: max(0, x.GetGuestUs()),
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
func (s *supervisor) exec(ctx context.Context, req api.ExecRequest, streams rpc.ExecIO) (api.ExecResult, error) {
	if err := req.Validate(); err != nil {
		return api.ExecResult{}, err
	}
	guest, err := s.agent(ctx)
	if err != nil {
		return api.ExecResult{}, err
	}
	start := command(req)
	to := client.Streams{
		Stdin: streams.Stdin, Stdout: streams.Stdout, Stderr: streams.Stderr,
		Started: func(pid int) { streams.Started(api.ProcessInfo{ExecID: start.GetExecId(), PID: pid}) },
	}
	if req.OnDisconnect == api.DisconnectKeep {
		// It goes on when the client is gone: nobody reads, nobody writes.
		ctx = context.WithoutCancel(ctx)
		to.Stdin, to.Stdout, to.Stderr = quietReader{to.Stdin}, quietWriter{to.Stdout}, quietWriter{to.Stderr}
	}
	if req.Main {
		log, err := s.output()
		if err != nil {
			return api.ExecResult{}, err
		}
		to.Stdout, to.Stderr = io.MultiWriter(log, to.Stdout), io.MultiWriter(log, to.Stderr)
	}
	exit, err := guest.Exec(ctx, start, to)
	if err != nil {
		return api.ExecResult{}, s.lost(err)
	}
	return result(exit), nil
}

// lost says of an error on the link what became of the VM, where that is the reason.
func (s *supervisor) lost(err error) error {
	if !errdefs.Is(err, errdefs.Unavailable) {
		return err
	}
	select {
	case <-s.gone:
	case <-time.After(200 * time.Millisecond): // the link goes a moment before the machine
		return err
	}
	st := s.snapshot()
	return errdefs.Unavailable.Errorf("the VM %s ended: %s", s.id, st.Reason).WithRemedy("smolvm logs --console %s", s.id)
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
func (s *supervisor) start(ctx context.Context, req api.ExecRequest) (api.ProcessInfo, error) {
	if err := req.Validate(); err != nil {
		return api.ProcessInfo{}, err
	}
	guest, err := s.agent(ctx)
	if err != nil {
		return api.ProcessInfo{}, err
	}
	req.Stdin, req.OnDisconnect = false, api.DisconnectKeep
	cmd := command(req)
	started := make(chan int, 1)
	to := client.Streams{Started: func(pid int) { started <- pid }}
	if req.Main {
		log, err := s.output()
		if err != nil {
			return api.ProcessInfo{}, err
		}
		to.Stdout, to.Stderr = log, log
	}
	done := make(chan error, 1)
	go func() {
		exit, err := guest.Exec(context.WithoutCancel(ctx), cmd, to)
		if err == nil {
			err = notStarted(exit)
		}
		if req.Main {
			s.noteEnd(exit, err)
		}
		done <- err
	}()
	info := api.ProcessInfo{ExecID: cmd.GetExecId()}
	select {
	case info.PID = <-started:
		return info, nil
	case err := <-done:
		select {
		case info.PID = <-started: // it was quick
			return info, nil
		default:
		}
		if err == nil {
			err = errdefs.Internal.Errorf("the guest did not say that the command was started")
		}
		return api.ProcessInfo{}, err
	case <-ctx.Done():
		return api.ProcessInfo{}, context.Cause(ctx)
	}
}

// notStarted makes an error of a command that could not be started.
func notStarted(x *proto.ExecExit) error {
	switch {
	case x.GetError() == "":
		return nil
	case x.GetExitCode() == 127:
		return errdefs.NotFound.Errorf("%s", cut(x.GetError(), 4096))
	default:
		return errdefs.Invalid.Errorf("%s", cut(x.GetError(), 4096))
	}
}

// noteEnd writes the end of the VM's main command down.
func (s *supervisor) noteEnd(exit *proto.ExecExit, err error) {
	e := api.Event{Type: "exec", Attrs: map[string]string{"main": "true"}}
	if err != nil {
		e.Reason = printable(cut(err.Error(), 1000))
	} else {
		r := result(exit)
		e.Reason = "the main command ended"
		e.Attrs["exit_code"] = itoa(r.ExitCode)
		if r.Signal != "" {
			e.Attrs["signal"] = r.Signal
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine != nil { // else the VM's own end says it
		s.note(e)
	}
}

// output is the log of the main command; a new start of the VM begins it anew.
func (s *supervisor) output() (*capfile.Writer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outlog != nil {
		return s.outlog, nil
	}
	w, err := capfile.Create(s.store.Path(s.id, store.OutputFile), maxOutput)
	if err != nil {
		return nil, errdefs.Host.Errorf("make the output's log: %w", err)
	}
	s.outlog = w
	return w, nil
}

// signal passes a signal on. A command that has ended needs none.
func (s *supervisor) signal(ctx context.Context, r rpc.SignalRequest) (rpc.Nothing, error) {
	if r.Signal < 1 || r.Signal > 64 {
		return rpc.Nothing{}, errdefs.Invalid.Errorf("there is no signal %d", r.Signal)
	}
	guest, err := s.agent(ctx)
	if err != nil {
		return rpc.Nothing{}, err
	}
	return rpc.Nothing{}, guest.Signal(ctx, r.ExecID, syscall.Signal(r.Signal), r.Group)
}
