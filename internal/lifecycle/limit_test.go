package lifecycle

import (
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// TestLimits: a VM whose time is over is stopped; one that nobody asks anything of is stopped, paused or removed.
func TestLimits(t *testing.T) {
	m := rig(t, "")
	ctx := t.Context()
	begin := func(id string, cfg api.Config) {
		t.Helper()
		cfg.ID, cfg.DiskMiB = id, 256
		if _, err := m.Create(ctx, cfg, CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Start(ctx, id, nil); err != nil {
			t.Fatal(err)
		}
	}
	is := func(id string, want api.State) func() bool {
		return func() bool {
			box, err := m.Inspect(ctx, id, false)
			return err == nil && box.State == want || want == "" && errdefs.Is(err, errdefs.NotFound)
		}
	}
	begin("ttl", api.Config{TTLMs: 700})
	begin("idle", api.Config{IdleMs: 500})
	begin("pause", api.Config{IdleMs: 500, IdleAction: api.IdlePause})
	begin("rm", api.Config{IdleMs: 500, IdleAction: api.IdleRemove})
	begin("busy", api.Config{IdleMs: 3000})
	if _, res := run(t, m, "busy", "sleep", "5"); res.ExitCode != 0 {
		t.Errorf("it was ended while it was in use: %+v", res)
	}
	eventually(t, 10*time.Second, "ttl stopped", is("ttl", api.StateStopped))
	state(t, m, "ttl", api.StateStopped, "its time to live of 700ms is over")
	eventually(t, 10*time.Second, "idle stopped", is("idle", api.StateStopped))
	state(t, m, "idle", api.StateStopped, "nobody asked anything of it for 500ms")
	eventually(t, 10*time.Second, "paused", is("pause", api.StatePaused))
	eventually(t, 10*time.Second, "removed", is("rm", ""))
	eventually(t, 10*time.Second, "busy stopped", is("busy", api.StateStopped))
}
