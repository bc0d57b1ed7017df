package lifecycle

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle/view"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/sys/cgroup"
	"github.com/smolvm/smolvm/internal/sys/lock"
	"github.com/smolvm/smolvm/internal/sys/pidfd"
)

// Why VMs are found ended.
const (
	reasonRestarted  = "host restarted"
	reasonSupervisor = "the supervisor is gone"
)

// sweep removes what died half way. It is in nobody's way when it fails.
func (m *Manager) sweep() {
	if err := m.store.Sweep(); err != nil {
		m.log.Warn("something is left behind", "error", err)
	}
}

// settle reads the record of a VM and makes it true: a live state whose lock is free has ended, and a VM whose client is
// gone is deleted. A VM at which somebody else is at work is left to him.
func (m *Manager) settle(ctx context.Context, id string) (store.Record, error) {
	rec, err := m.store.Read(id)
	if err != nil {
		return rec, err
	}
	if !m.suspect(rec) {
		return rec, nil
	}
	l, err := m.store.TryLock(id)
	if errors.Is(err, lock.ErrHeld) && rec.State.Supervisor != nil && !rec.State.Supervisor.Lives(rec.State.BootID) {
		// What remains of it is just ending: its threads, its monitor.
		if l, err = m.waitLock(ctx, id, endingWait); err != nil {
			return m.store.Read(id) // another smolvm is at work on it
		}
	}
	if errors.Is(err, lock.ErrHeld) {
		return rec, nil
	}
	if err != nil {
		return rec, err
	}
	defer func() { _ = l.Close() }()
	return m.settleLocked(ctx, id)
}

// endingWait bounds the wait for what outlives a supervisor for a moment.
const endingWait = 2 * time.Second

// suspect reports whether a record may not be true any more.
func (m *Manager) suspect(rec store.Record) bool {
	st := rec.State
	return st.State.Live() || st.State == api.StateDeleting || st.Abandoned()
}

// settleLocked is settle for who holds the lock.
func (m *Manager) settleLocked(ctx context.Context, id string) (store.Record, error) {
	return m.settleEnded(ctx, id, "")
}

// settleEnded is settleLocked for who asked for the end: a supervisor that could not write it down itself, because it was
// only just starting or did not answer, did what it was asked for.
func (m *Manager) settleEnded(ctx context.Context, id, asked string) (store.Record, error) {
	rec, err := m.store.Read(id) // it may have changed before we had the lock
	if err != nil {
		return rec, err
	}
	if !m.suspect(rec) {
		return rec, nil
	}
	bootID, err := store.HostBootID()
	if err != nil {
		return rec, err
	}
	st := rec.State
	if st.BootID == bootID {
		if err := m.reap(ctx, st); err != nil {
			return rec, err
		}
	}
	if st.State == api.StateDeleting || st.Abandoned() {
		m.log.Info("deleted: "+st.Rule().AbandonedReason(), "vm", id)
		if err := m.store.Discard(id); err != nil {
			return rec, err
		}
		return rec, store.NotFound(id)
	}
	if err := m.store.Reclaim(id); err != nil {
		m.log.Warn("a monitor's user id still has the disk", "vm", id, "error", err)
	}
	st.Reason = reasonSupervisor
	switch {
	case st.BootID != bootID:
		st.State, st.Reason = api.StateStopped, reasonRestarted
	case asked != "":
		st.State, st.Reason = api.StateStopped, asked
	case st.State == api.StateStopping:
		st.State = api.StateStopped // asked for, and done
	default:
		st.State = api.StateError
	}
	now := time.Now().UTC()
	st.BootID, st.Supervisor, st.Engine, st.StoppedAt = bootID, nil, nil, &now
	rec.State = st
	if err := m.save(id, st); err != nil {
		return rec, &unsavedError{err}
	}
	return rec, nil
}

// unsavedError tells that the record which comes with it is true, and could not be written: the disk is full, or read only.
type unsavedError struct{ error }

// Unwrap gives the reason.
func (e *unsavedError) Unwrap() error { return e.error }

// save writes a state and tells of it. The caller holds the lock.
func (m *Manager) save(id string, st store.State) error {
	if err := m.store.SaveState(id, st); err != nil {
		return err
	}
	if err := m.store.AppendEvent(id, api.Event{Type: "state", State: st.State, Reason: st.Reason}); err != nil {
		m.log.Warn("an event is lost", "vm", id, "error", err)
	}
	return nil
}

// reapWait bounds the wait for a process that was killed.
const reapWait = 10 * time.Second

// reap kills what the record claims and what runs although nobody holds the lock any more: a monitor that could not inherit
// it.
func (m *Manager) reap(ctx context.Context, st store.State) error {
	procs := []store.Process{}
	if st.Supervisor != nil {
		procs = append(procs, *st.Supervisor)
	}
	if h, ok := view.Handle(st); ok {
		procs = append(procs, store.Process{PID: h.PID, StartTicks: h.StartTicks})
	}
	for _, p := range procs {
		if p.PID <= 0 || p.StartTicks == 0 {
			continue // names nobody for certain
		}
		wait, cancel := context.WithTimeout(ctx, reapWait)
		err := pidfd.Kill(wait, p.PID, p.StartTicks)
		cancel()
		if err != nil {
			return errdefs.Host.Errorf("end the process %d that a VM left behind: %w", p.PID, err)
		}
	}
	if st.Cgroup != "" && strings.HasPrefix(filepath.Base(st.Cgroup), "smolvm-") {
		if err := cgroup.Remove(st.Cgroup); err != nil {
			return errdefs.Host.Errorf("remove the control group that a VM left behind: %w", err)
		}
	}
	return nil
}
