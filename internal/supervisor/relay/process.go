package relay

import (
	"context"
	"syscall"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/excerpt"
)

// signal passes a signal on. A command that has ended needs none.
func (r *Relay) signal(ctx context.Context, req rpc.SignalRequest) (rpc.Nothing, error) {
	if req.Signal < 1 || req.Signal > 64 {
		return rpc.Nothing{}, errdefs.Invalid.Errorf("there is no signal %d", req.Signal)
	}
	guest, err := r.agent(ctx)
	if err != nil {
		return rpc.Nothing{}, err
	}
	return rpc.Nothing{}, r.which(guest.Signal(ctx, req.ExecID, syscall.Signal(req.Signal), req.Group))
}

// which helps with a command that is not found.
func (r *Relay) which(err error) error {
	if errdefs.Is(err, errdefs.NotFound) || errdefs.Is(err, errdefs.Invalid) || errdefs.Is(err, errdefs.WrongState) {
		return errdefs.ClassOf(err).Errorf("%w", err).WithRemedy("smolvm ps -a %s", r.opts.ID)
	}
	return r.lost(err)
}

func (r *Relay) keep(ctx context.Context, req rpc.ProcessRequest) (rpc.Nothing, error) {
	guest, err := r.agent(ctx)
	if err != nil {
		return rpc.Nothing{}, err
	}
	return rpc.Nothing{}, r.which(guest.Keep(ctx, req.Process))
}

func (r *Relay) resize(ctx context.Context, req rpc.ResizeRequest) (rpc.Nothing, error) {
	guest, err := r.agent(ctx)
	if err != nil {
		return rpc.Nothing{}, err
	}
	return rpc.Nothing{}, r.which(guest.Resize(ctx, req.Process, uint32(req.Rows), uint32(req.Cols)))
}

func (r *Relay) wait(ctx context.Context, req rpc.ProcessRequest) (api.ExecResult, error) {
	guest, err := r.agent(ctx)
	if err != nil {
		return api.ExecResult{}, err
	}
	exit, err := guest.Wait(ctx, req.Process)
	if err != nil {
		return api.ExecResult{}, r.which(err)
	}
	return result(exit), nil
}

func (r *Relay) processes(ctx context.Context, req rpc.ProcessRequest) (rpc.ProcessesResponse, error) {
	guest, err := r.agent(ctx)
	if err != nil {
		return rpc.ProcessesResponse{}, err
	}
	var all []*proto.Process
	if req.One {
		var one *proto.Process
		one, err = guest.Process(ctx, req.Process)
		all = append(all, one)
	} else {
		all, err = guest.Processes(ctx)
	}
	if err != nil {
		return rpc.ProcessesResponse{}, r.which(err)
	}
	res := rpc.ProcessesResponse{Processes: make([]api.Process, 0, len(all))}
	for _, p := range all {
		res.Processes = append(res.Processes, process(p))
	}
	return res, nil
}

// process is what the guest says of a command, bounded.
func process(p *proto.Process) api.Process {
	info := api.Process{
		ExecID: excerpt.Cut(p.GetExecId(), 128), PID: int(p.GetPid()), Command: excerpt.Cut(p.GetCommand(), 2*proto.MaxCommand),
		User: excerpt.Cut(p.GetUser(), 128), TTY: p.GetTerminal(), Stdin: p.GetStdin(), Detached: p.GetDetached(), Main: p.GetMain(),
		Started: time.Unix(0, p.GetStartedNs()).UTC(), OutputBytes: p.GetOutputBytes(), OutputFrom: min(p.GetOutputFrom(), p.GetOutputBytes()),
	}
	if p.GetExit() != nil {
		ended, res := time.Unix(0, p.GetEndedNs()).UTC(), result(p.GetExit())
		info.Ended, info.Result = &ended, &res
	}
	return info
}

// attach joins a client to a command. When the client goes, the command stays.
func (r *Relay) attach(ctx context.Context, req api.AttachRequest, streams rpc.AttachIO) (*api.ExecResult, error) {
	guest, err := r.agent(ctx)
	if err != nil {
		return nil, err
	}
	start := &proto.AttachStart{ExecId: req.Process, Offset: req.Offset, NoFollow: req.NoFollow, Stdin: req.Stdin}
	exit, err := guest.Attach(ctx, start, client.Attachment{
		Stdin: streams.Stdin, Stdout: streams.Stdout, Stderr: streams.Stderr,
		Began: func(p *proto.Process) error { streams.Began(process(p)); return nil },
		Gap:   func(n uint64) error { streams.Gap(n); return nil },
	})
	if err != nil {
		return nil, r.which(err)
	}
	if exit == nil {
		return nil, nil
	}
	res := result(exit)
	return &res, nil
}
