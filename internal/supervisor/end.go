package supervisor

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/diagnose"
	"github.com/smolvm/smolvm/internal/sys/excerpt"
	"github.com/smolvm/smolvm/internal/sys/fault"
)

// defaultGrace is what a guest gets for its orderly end.
const defaultGrace = 10 * time.Second

// end asks for the VM's end.
type end struct {
	reason string
	grace  time.Duration
	kill   bool // no orderly end
	delete bool // and delete the VM
	fail   bool // it counts as an error
	done   chan error
}

func (e end) asked() bool { return e.reason != "" }

func (e end) answer(err error) {
	if e.done != nil {
		e.done <- err
	}
}

// outcome is how a VM is left.
type outcome struct {
	state  api.State
	reason string
	delete bool
}

// ask asks for the VM's end and waits until it is settled.
func (s *supervisor) ask(ctx context.Context, e end) error {
	e.done = make(chan error, 1)
	select {
	case s.ends <- e:
	case <-s.gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case err := <-e.done:
		return err
	case <-s.gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// live waits for the end of a machine that runs. first is an end that was asked for while it booted.
func (s *supervisor) live(ctx context.Context, first end) error {
	machine := s.running()
	exited := make(chan engine.Exit, 1)
	go func() {
		exit, err := machine.Wait(ctx)
		if err != nil {
			exit = engine.Exit{Kind: engine.ExitFailed, Detail: err.Error()}
		}
		exited <- exit
	}()
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	e := &ending{s: s, ctx: stop, machine: machine}
	if first.asked() {
		e.add(first)
	}
	var exit engine.Exit
	for waiting := true; waiting; {
		select {
		case more := <-s.ends:
			e.add(more)
		case exit = <-exited:
			waiting = false
		}
	}
	if exit.Kind == engine.ExitKilled && s.group.OutOfMemory() {
		exit.Signal += ", its control group had no memory left"
	}
	o := e.outcome(exit, s.console.Tail(8<<10))
	if err := machine.Stop(ctx, 0); err != nil { // it has ended; this is for what the engine holds
		s.log.Warn("after the monitor's end", "error", err)
	}
	fault.Point("supervise.ended")
	err := s.settle(o)
	for _, w := range e.waiters {
		w.answer(err)
	}
	s.hangUp()
	return err
}

// ending collects who asks for the end, and what they ask for.
type ending struct {
	s       *supervisor
	ctx     context.Context //nolint:containedctx // lasts as long as the end does
	machine engine.Machine
	waiters []end
	hurry   context.CancelFunc // ends the wait for the guest's orderly end
}

// add takes one request. A later one can turn an orderly end into a kill, never back.
func (e *ending) add(r end) {
	e.waiters = append(e.waiters, r)
	if len(e.waiters) == 1 {
		if err := e.s.save(func(st *store.State) { st.State, st.Reason = api.StateStopping, r.reason }); err != nil {
			e.s.log.Warn("the record does not say that the VM is stopping", "error", err)
		}
	}
	fault.Point("supervise.stopping", e.machine.Handle().PID)
	if r.kill {
		if e.hurry != nil {
			e.hurry()
		}
		go e.stop(0)
		return
	}
	if e.hurry != nil || len(e.waiters) > 1 {
		return
	}
	var orderly context.Context
	orderly, e.hurry = context.WithTimeout(e.ctx, r.grace)
	go e.orderly(orderly, r.grace)
}

// orderly has the agent end everything and switch off, and kills when it does not.
func (e *ending) orderly(ctx context.Context, grace time.Duration) {
	begun := time.Now()
	if err := e.s.wake(ctx); err != nil {
		e.s.log.Warn("unpause for the end", "error", err)
	}
	if err := e.s.relay.Shutdown(ctx, grace/2); err != nil {
		e.s.log.Info("the agent did not shut down", "error", err)
		grace = 0 // it will not, then
	}
	e.stop(max(0, grace-time.Since(begun)))
}

func (e *ending) stop(grace time.Duration) {
	if err := e.machine.Stop(e.ctx, grace); err != nil {
		e.s.log.Warn("stop the monitor", "error", err)
	}
}

// outcome says how the VM is left. tail is the end of its console, which the guest wrote: it is a claim.
func (e *ending) outcome(exit engine.Exit, tail []byte) outcome {
	if len(e.waiters) > 0 {
		first := e.waiters[0]
		o := outcome{state: api.StateStopped, reason: first.reason}
		killed := exit.Kind == engine.ExitStopped || exit.Kind == engine.ExitKilled
		wanted := false
		for _, w := range e.waiters {
			o.delete = o.delete || w.delete
			wanted = wanted || w.kill
			if w.fail {
				o.state = api.StateError
			}
		}
		if killed && !wanted {
			o.reason += "; the guest did not end by itself and was killed"
		}
		return o
	}
	switch exit.Kind {
	case engine.ExitPoweroff:
		return outcome{state: api.StateStopped, reason: "the guest powered off"}
	case engine.ExitReboot:
		if line, ok := diagnose.Panic(tail); ok { // panic=-1 resets the machine
			return outcome{state: api.StateError, reason: "the guest's kernel panicked: " + line}
		}
		return outcome{state: api.StateStopped, reason: "the guest asked for a reboot, and was stopped"}
	case engine.ExitPanic:
		line, _ := diagnose.Panic(tail)
		return outcome{state: api.StateError, reason: strings.TrimSuffix("the guest's kernel panicked: "+line, ": ")}
	case engine.ExitStopped, engine.ExitKilled:
		return outcome{state: api.StateError, reason: strings.TrimSuffix("the monitor was killed ("+exit.Signal+")", " ()")}
	case engine.ExitFailed:
	}
	return outcome{state: api.StateError, reason: strings.TrimSuffix(fmt.Sprintf("the monitor failed with code %d: %s", exit.Code, excerpt.Printable(exit.Detail)), ": ")}
}

// settle writes down how the VM is left, and deletes it where that is wanted.
func (s *supervisor) settle(o outcome) error {
	s.ports.Close() // the next VM may have them
	if st := s.snapshot(); st.Abandoned() {
		o.delete = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.relay.Close()
	if s.outlog != nil {
		_ = s.outlog.Close()
	}
	s.machine, s.outlog = nil, nil
	now := time.Now().UTC()
	err := s.saveLocked(func(st *store.State) {
		st.State, st.Reason, st.StoppedAt = o.state, o.reason, &now
		st.Supervisor, st.Engine, st.ExpiresAt = nil, nil, nil
		if o.delete {
			st.State = api.StateDeleting
		}
	})
	if err != nil {
		s.log.Error("the record is not settled; the next command does it", "error", err)
	}
	if o.delete {
		if err = s.store.Discard(s.id); err != nil {
			s.log.Error("the VM is not deleted; the next command does it", "error", err)
		}
	}
	close(s.gone)
	return err
}

// running is the machine; nil when there is none.
func (s *supervisor) running() engine.Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machine
}

// trim gives the memory that the start needed back to the host.
func (s *supervisor) trim(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
		debug.FreeOSMemory()
	}
}

// pause stops the processors, or lets them go on.
func (s *supervisor) pause(ctx context.Context, want bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, to := api.StateRunning, api.StatePaused
	if !want {
		from, to = to, from
	}
	if s.state.State == to {
		return nil
	}
	if s.state.State != from || s.machine == nil {
		return store.CanFollow(s.id, s.state.State, to)
	}
	p, ok := s.machine.(engine.Pauser)
	if !ok {
		return errdefs.Engine.Errorf("this engine cannot pause a VM")
	}
	act, back := p.Pause, p.Resume
	if !want {
		act, back = back, act
	}
	if err := act(ctx); err != nil {
		return err
	}
	err := s.saveLocked(func(st *store.State) { st.State, st.Reason = to, "" })
	if err != nil {
		_ = back(ctx)
	} else if !want {
		go s.relay.SetClock(context.WithoutCancel(ctx), s.log)
	}
	return err
}

// wake lets the processors go on for an orderly end.
func (s *supervisor) wake(ctx context.Context) error {
	if p, ok := s.running().(engine.Pauser); ok {
		return p.Resume(ctx)
	}
	return nil
}
