package lifecycle

import (
	"context"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/audit"
	"github.com/smolvm/smolvm/internal/network/secret"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
)

// SetNetwork changes the policy of a VM's network. Of one that runs, the new policy is in force when it returns, also for
// connections that are open; it stays over restarts.
func (m *Manager) SetNetwork(ctx context.Context, id string, p api.NetworkPolicy) error {
	p = p.WithDefaults()
	if _, err := network.Compile(p, network.Options{}); err != nil {
		return err
	}
	return m.change(ctx, id, func(c *rpc.Client) error { return c.SetNetwork(ctx, p) }, func(rec store.Record) error {
		if _, err := network.Compile(p, network.Options{SecretHosts: secret.Hosts(rec.Config.Config.Secrets)}); err != nil {
			return err
		}
		if err := m.store.SavePolicy(id, p); err != nil {
			return err
		}
		if err := m.store.AppendEvent(id, api.Event{Type: "network", Reason: p.String()}); err != nil {
			m.log.Warn("an event is lost", "vm", id, "error", err)
		}
		return nil
	})
}

// NetworkLog calls each with the records that are kept of a VM's network, oldest first; with follow it goes on until the VM
// ends or ctx does.
func (m *Manager) NetworkLog(ctx context.Context, id string, follow bool, each func(api.NetRecord) error) error {
	m.sweep()
	rec, err := m.settle(ctx, id)
	if errdefs.Is(err, errdefs.NotFound) || errdefs.Is(err, errdefs.Invalid) {
		return err
	}
	r := audit.NewReader(m.store.Dir(id))
	defer func() { _ = r.Close() }()
	if !follow || err != nil || !rec.State.State.Live() || rec.State.Supervisor == nil {
		return r.Each(each)
	}
	return store.FollowDir(ctx, m.store.Dir(id), *rec.State.Supervisor, func() error { return r.Each(each) })
}

// NetworkStats adds up the records that are kept of a VM's network.
func (m *Manager) NetworkStats(ctx context.Context, id string) (api.NetStats, error) {
	m.sweep()
	if _, err := m.settle(ctx, id); errdefs.Is(err, errdefs.NotFound) || errdefs.Is(err, errdefs.Invalid) {
		return api.NetStats{}, err
	}
	return audit.Stats(m.store.Dir(id))
}
