package lifecycle

import (
	"context"
	"slices"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network/publish"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
)

// takePorts makes the listeners of what the VM publishes, for its supervisor. So a port that is taken is refused before
// anything has changed, and of two VMs that want one at once, one gets it. Ports that may be any keep the number they get.
func (m *Manager) takePorts(ctx context.Context, rec store.Record, boot *bootFiles) error {
	id, want := rec.Config.Config.ID, rec.Published()
	var err error
	if boot.ports, boot.plan.Ports, err = publish.Take(ctx, want); err != nil || slices.Equal(want, boot.plan.Ports) {
		return err
	}
	for i, p := range want {
		if got := boot.plan.Ports[i]; p.HostPort != 0 && got != p {
			m.log.Warn("a port that was any free one is taken now, so it is another one", "vm", id, "was", p.Host(), "is", got.Host())
		}
	}
	return m.store.SavePorts(id, boot.plan.Ports)
}

// PublishPort publishes a TCP port of a VM, from now on if it runs, and over restarts, and returns it with the number that it
// has on this host, if it has one yet. A port that is taken is class already_exists, and nothing has changed.
func (m *Manager) PublishPort(ctx context.Context, id string, p api.Port) (api.Port, error) {
	p = p.WithDefaults()
	if err := p.Validate(); err != nil {
		return p, err
	}
	return m.changePorts(ctx, id, p, (*rpc.Client).PublishPort, func(ports []api.Port) ([]api.Port, api.Port, error) {
		ports, err := publish.Added(ports, p)
		return ports, p, err
	})
}

// UnpublishPort ends that, and the port's connections, and returns the port. It is named as in api.SelectPort.
func (m *Manager) UnpublishPort(ctx context.Context, id string, which api.Port) (api.Port, error) {
	return m.changePorts(ctx, id, which, (*rpc.Client).UnpublishPort, func(ports []api.Port) ([]api.Port, api.Port, error) {
		at, err := api.SelectPort(ports, which)
		if err != nil {
			return nil, which, err
		}
		return slices.Delete(slices.Clone(ports), at, at+1), ports[at], nil
	})
}

// changePorts asks the supervisor of a VM that runs, or changes the record of one that does not.
func (m *Manager) changePorts(ctx context.Context, id string, p api.Port, ask func(*rpc.Client, context.Context, api.Port) (api.Port, error),
	change func([]api.Port) ([]api.Port, api.Port, error),
) (api.Port, error) {
	err := m.change(ctx, id, func(c *rpc.Client) (err error) { p, err = ask(c, ctx, p); return err }, func(rec store.Record) error {
		var ports []api.Port
		var err error
		if ports, p, err = change(rec.Published()); err != nil {
			return err
		}
		return m.store.SavePorts(id, ports)
	})
	return p, err
}
