package lifecycle

import (
	"context"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/lifecycle/view"
	"github.com/smolvm/smolvm/internal/sys/memory"
)

// Stats tells what a VM uses: what its guest says, and what it costs the host. A guest that is paused says nothing.
func (m *Manager) Stats(ctx context.Context, id string) (api.Stats, error) {
	rec, err := m.settle(ctx, id)
	if err != nil {
		return api.Stats{}, err
	}
	s := api.Stats{
		VM: id, Time: time.Now().UTC(), State: rec.State.State, CPUs: rec.Config.Config.CPUs,
		MemoryLimit: uint64(rec.Config.Config.MemoryMiB) << 20, DiskLimit: uint64(rec.Config.Config.DiskMiB) << 20,
		HostDisk: m.store.DiskUsed(id),
	}
	if !rec.State.State.Live() {
		return s, nil
	}
	if h, ok := view.Handle(rec.State); ok {
		s.HostMemory += memory.Resident(h.PID)
	}
	if rec.State.Supervisor != nil {
		s.HostMemory += memory.Resident(rec.State.Supervisor.PID)
	}
	if rec.State.State != api.StateRunning {
		return s, nil
	}
	c, err := m.dial(ctx, id)
	if err != nil {
		return s, err
	}
	defer func() { _ = c.Close() }()
	guest, err := c.Metrics(ctx)
	if err == nil {
		s.Guest = &guest
	}
	return s, err
}
