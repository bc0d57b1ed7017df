package supervisor

import (
	"context"
	"io"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/capfile"
)

// handle says what the control socket answers.
func (s *supervisor) handle() {
	s.relay.Register(s.server)
	rpc.Handle(s.server, rpc.RouteStop, s.stop)
	rpc.Handle(s.server, rpc.RouteOwner, s.setOwner)
	rpc.Handle(s.server, rpc.RouteTTL, s.setTTL)
	rpc.Handle(s.server, rpc.RouteEnv, s.setEnv)
	rpc.Handle(s.server, rpc.RouteNetwork, s.setNetwork)
	rpc.Handle(s.server, rpc.RouteSecrets, s.setSecrets)
	rpc.Handle(s.server, rpc.RoutePort, s.changePort)
	for route, want := range map[string]bool{rpc.RoutePause: true, rpc.RouteUnpause: false} {
		rpc.Handle(s.server, route, func(ctx context.Context, _ rpc.Nothing) (rpc.Nothing, error) {
			return rpc.Nothing{}, s.pause(ctx, want)
		})
	}
}

// ready refuses what the guest cannot be asked in the VM's present state.
func (s *supervisor) ready() error {
	state := s.snapshot().State
	err := errdefs.WrongState.Errorf("the VM %s is %s", s.id, state)
	switch state {
	case api.StateRunning:
		return nil
	case api.StatePaused:
		return err.WithRemedy("smolvm unpause %s", s.id)
	default:
		return err.WithRemedy("smolvm inspect %s", s.id)
	}
}

// ended tells how the VM ended, if it does within a moment: the link to the guest goes shortly before the machine.
func (s *supervisor) ended() (reason string, ended bool) {
	select {
	case <-s.gone:
		return s.snapshot().Reason, true
	case <-time.After(200 * time.Millisecond):
		return "", false
	}
}

// mainEnded writes the end of the VM's main command down, unless the VM's own end is the reason.
func (s *supervisor) mainEnded(e api.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine != nil {
		s.note(e)
	}
}

// output is the log of the main command; a new start of the VM begins it anew.
func (s *supervisor) output() (io.Writer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outlog != nil {
		return s.outlog, nil
	}
	w, err := capfile.Create(s.store.Path(s.id, store.OutputFile), mib(s.config.Config.LogMiB, api.DefaultLogMiB))
	if err != nil {
		return nil, errdefs.Host.Errorf("make the output's log: %w", err)
	}
	s.outlog = w
	return w, nil
}

// stop ends the VM. It goes on when the client does not wait for it.
func (s *supervisor) stop(ctx context.Context, r rpc.StopRequest) (rpc.Nothing, error) {
	e := end{reason: "stopped", grace: time.Duration(r.GraceMs) * time.Millisecond, kill: r.Kill, delete: r.Delete}
	if e.grace <= 0 {
		e.grace = defaultGrace
	}
	return rpc.Nothing{}, s.ask(ctx, e)
}

// setOwner changes who decides that the VM may go.
func (s *supervisor) setOwner(ctx context.Context, r rpc.OwnerRequest) (rpc.Nothing, error) {
	rule, err := store.NewRule(api.OwnerRequest{Owner: r.Owner, ClientPID: r.Client, LeaseMs: r.LeaseMs})
	if err != nil {
		return rpc.Nothing{}, err
	}
	return rpc.Nothing{}, s.follow(ctx, func() error { return s.save(func(st *store.State) { st.SetRule(rule) }) })
}

// follow watches the owner that the record has after a change of it. The watch outlives the call.
func (s *supervisor) follow(ctx context.Context, change func() error) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	if err := change(); err != nil {
		return err
	}
	st := s.snapshot()
	return s.life.Follow(context.WithoutCancel(ctx), st.Rule())
}
