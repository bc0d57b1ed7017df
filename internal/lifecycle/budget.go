package lifecycle

import (
	"context"
	"path/filepath"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/budget"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/sys/lock"
)

// reserve refuses a VM that goes beyond the budget. Until release is called no other start is weighed: the caller writes
// down that his VM is starting first.
func (m *Manager) reserve(ctx context.Context, rec store.Record) (release func(), err error) {
	l, err := lock.Exclusive(ctx, filepath.Join(m.store.Home(), "locks", "budget"))
	if err != nil {
		return nil, errdefs.Host.Errorf("lock the budget: %w", err)
	}
	running, err := m.running(rec.Config.Config.ID)
	if err == nil {
		err = m.opts.Budget.Admit(room(rec), running)
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return func() { _ = l.Close() }, nil
}

// running lists the VMs that run, but one.
func (m *Manager) running(but string) ([]budget.VM, error) {
	ids, err := m.store.IDs()
	if err != nil {
		return nil, err
	}
	var vms []budget.VM
	for _, id := range ids {
		rec, err := m.store.Read(id)
		if err != nil || id == but || !rec.State.State.Live() {
			continue // who cannot be read does not run for us
		}
		if held, err := m.store.Locked(id); err == nil && !held {
			continue // it has ended, and nobody has looked yet
		}
		vms = append(vms, room(rec))
	}
	return vms, nil
}

func room(rec store.Record) budget.VM {
	return budget.VM{ID: rec.Config.Config.ID, MemoryMiB: rec.Config.Config.MemoryMiB}
}
