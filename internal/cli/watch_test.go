package cli_test

import (
	"context"
	"time"

	"github.com/smolvm/smolvm/api"
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
		s.Guest = &api.Metrics{UptimeMs: ms, CPUMs: ms / 2, MemoryTotal: 1 << 30, MemoryAvailable: 1 << 29, DiskTotal: 8 << 30, DiskFree: 6 << 30, Processes: 42}
	}
	return s, nil
}
