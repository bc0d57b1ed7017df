package lifecycle

import (
	"context"
	"errors"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/sys/lock"
)

// Rename gives a VM that does not run another id.
func (m *Manager) Rename(ctx context.Context, id, to string) error {
	if err := api.ValidateID(to); err != nil {
		return err
	}
	m.sweep()
	rec, err := m.settle(ctx, id)
	if err == nil && rec.State.State.Live() {
		err = errdefs.WrongState.Errorf("the VM %s is %s", id, rec.State.State).WithRemedy("smolvm stop %s", id)
	}
	if err != nil {
		return err
	}
	target, err := m.store.TryLock(to)
	if err == nil {
		defer func() { _ = target.Close() }()
	}
	if errors.Is(err, lock.ErrHeld) || m.store.Exists(to) {
		return errdefs.AlreadyExists.Errorf("there is already a VM %q", to).WithRemedy("smolvm ls -a")
	}
	if err != nil {
		return err
	}
	own, err := m.lockIdle(ctx, id, "")
	if err != nil {
		return err
	}
	defer func() { _ = own.Close() }()
	config, err := m.store.LockConfig(ctx, id)
	if err != nil {
		return err
	}
	defer func() { _ = config.Close() }()
	if err := m.store.Rename(id, to); err != nil {
		return err
	}
	return m.store.AppendEvent(to, api.Event{Type: "renamed", Reason: "it was " + id})
}

// Update changes a VM's limits, from its next start on, and returns it. Zero values stay as they are; a disk only grows.
func (m *Manager) Update(ctx context.Context, id string, limits api.Limits) (api.Sandbox, error) {
	m.sweep()
	if _, err := m.settle(ctx, id); err != nil {
		return api.Sandbox{}, err
	}
	l, err := m.store.LockConfig(ctx, id)
	if err != nil {
		return api.Sandbox{}, err
	}
	defer func() { _ = l.Close() }()
	rec, err := m.store.Read(id)
	if err != nil {
		return api.Sandbox{}, err
	}
	if rec.Config.Config, err = rec.Config.Config.With(limits); err != nil {
		return api.Sandbox{}, err
	}
	if err := image.GrowDisk(m.store.Path(id, store.DiskFile), rec.Config.Config.DiskMiB); err != nil {
		return api.Sandbox{}, err
	}
	return m.sandbox(rec, false), m.store.SaveConfig(id, rec.Config)
}
