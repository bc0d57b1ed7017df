package cli_test

import (
	"context"
	"os"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

func (d double) Watch(_ context.Context, o lifecycle.EventsOptions, f func(api.Event) error) error {
	call("events %v follow=%v since=%v", o.IDs, o.Follow, !o.Since.IsZero())
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, e := range []api.Event{
		{Time: at, VM: "web", Type: "state", State: api.StateRunning},
		{Time: at, VM: "old", Type: "exec", Reason: "ended \x1b[2J", Attrs: map[string]string{"main": "true", "exit_code": "3"}},
	} {
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

func (d double) Stats(_ context.Context, id string) (api.Stats, error) {
	vm, err := d.find(id)
	if err != nil {
		return api.Stats{}, err
	}
	s := api.Stats{VM: id, State: vm.State, CPUs: vm.Config.CPUs, HostMemory: 300 << 20, HostDisk: 5 << 20}
	if vm.State == api.StateRunning {
		ms := time.Now().UnixMilli()
		s.Guest = &api.Metrics{UptimeMs: ms, CPUMs: ms / 2, MemoryTotal: 1 << 30, MemoryAvailable: 1 << 29, DiskTotal: 8 << 30, DiskFree: 6 << 30, NetworkReceived: 3 << 20, NetworkSent: 1 << 20, Processes: 42}
	}
	return s, nil
}

// pruner has an image to remove, and with o.VMs a VM whose removal fails.
type pruner struct{}

func (pruner) Find(_ context.Context, o api.PruneOptions) ([]api.Leftover, error) {
	call("find all=%v vms=%v", o.All, o.VMs)
	if os.Getenv("CLEAN") != "" {
		return nil, nil
	}
	found := []api.Leftover{{Kind: "image", Name: "sha256:0123", Why: "replaced by a newer build", Bytes: 400 << 20}}
	if o.VMs {
		found = append(found, api.Leftover{Kind: "vm", Name: "old", Why: "error", Bytes: 100 << 20})
	}
	return found, nil
}

func (pruner) Remove(_ context.Context, l api.Leftover) error {
	if l.Kind == "vm" {
		return errdefs.WrongState.Errorf("the VM %s is running", l.Name)
	}
	call("prune %s %s", l.Kind, l.Name)
	return nil
}

func (d double) Rename(_ context.Context, id, to string) error {
	call("rename %s %s", id, to)
	_, err := d.find(id)
	return err
}

func (d double) Update(_ context.Context, id string, l api.Limits) (api.Sandbox, error) {
	call("update %s %+v", id, l)
	return d.find(id)
}

func (d double) SetTTL(_ context.Context, id string, ttl time.Duration) error {
	call("ttl %s %s", id, ttl)
	_, err := d.find(id)
	return err
}

func (d double) SetEnv(_ context.Context, id string, c api.EnvChange) (map[string]string, error) {
	call("env %s %+v", id, c)
	if _, err := d.find(id); err != nil {
		return nil, err
	}
	return c.Apply(map[string]string{"OLD": "1"})
}

func (images) BuildSSH(_ context.Context, r api.SSHImageRequest, _ api.ProgressFunc) (api.SSHImage, error) {
	call("lay out %+v", r)
	return api.SSHImage{KernelPath: "/home/kernels/x/vmlinux", RootfsPath: "/home/images/built/y/rootfs.ext4"}, nil
}
