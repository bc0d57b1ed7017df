package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle/view"
	"github.com/smolvm/smolvm/internal/store"
)

// sandbox shows a record.
func (m *Manager) sandbox(rec store.Record, showEnv bool) api.Sandbox {
	return view.Of(rec, m.store.Dir(rec.Config.Config.ID), showEnv)
}

// shown is a VM whose record was settled with err: what is known of it, however little.
func (m *Manager) shown(id string, rec store.Record, err error, showEnv bool) api.Sandbox {
	unsaved, ok := errors.AsType[*unsavedError](err)
	switch {
	case err == nil:
		return m.sandbox(rec, showEnv)
	case ok:
		rec.State.Reason += "; that cannot be written down: " + unsaved.Error()
		return m.sandbox(rec, showEnv)
	default:
		return m.broken(id, err)
	}
}

// broken shows a VM whose record cannot be read.
func (m *Manager) broken(id string, err error) api.Sandbox {
	reason := err.Error()
	if remedy := errdefs.RemedyOf(err); remedy != "" {
		reason += " (" + remedy + ")"
	}
	return api.Sandbox{ID: id, State: api.StateBroken, Reason: reason, Ports: []api.Port{}, Dir: m.store.Dir(id)}
}

// List returns the VMs, sorted by creation; only live ones unless all. Broken records are listed as such.
func (m *Manager) List(ctx context.Context, all bool) ([]api.Sandbox, error) {
	m.sweep()
	ids, err := m.store.IDs()
	if err != nil {
		return nil, err
	}
	boxes := []api.Sandbox{}
	for _, id := range ids {
		rec, err := m.settle(ctx, id)
		switch {
		case errdefs.Is(err, errdefs.NotFound): // it went meanwhile
		case err != nil || all || rec.State.State.Live():
			boxes = append(boxes, m.shown(id, rec, err, false))
		}
	}
	slices.SortStableFunc(boxes, func(a, b api.Sandbox) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	return boxes, nil
}

// Inspect returns one VM, a broken one as such. Env values are masked unless showEnv.
func (m *Manager) Inspect(ctx context.Context, id string, showEnv bool) (api.Sandbox, error) {
	m.sweep()
	rec, err := m.settle(ctx, id)
	switch {
	case err == nil || m.store.Exists(id):
		return m.shown(id, rec, err, showEnv), nil
	default:
		return api.Sandbox{}, err
	}
}

// Events returns the VM's events, oldest first.
func (m *Manager) Events(ctx context.Context, id string) ([]api.Event, error) {
	m.sweep()
	if _, err := m.settle(ctx, id); errdefs.Is(err, errdefs.NotFound) {
		return nil, err
	}
	return m.store.Events(id)
}
