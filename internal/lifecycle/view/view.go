// Package view shows a VM's record as the fronts have it.
//
// Layer: part of lifecycle. It may import engine, store, api.
package view

import (
	"encoding/json"
	"maps"
	"strings"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/store"
)

// Of shows the record of the VM whose directory is dir. What its variables hold is masked unless showEnv.
func Of(rec store.Record, dir string, showEnv bool) api.Sandbox {
	cfg, st := rec.Config.Config, rec.State
	if !showEnv && cfg.Env != nil {
		cfg.Env = maps.Clone(cfg.Env)
		for k := range cfg.Env {
			cfg.Env[k] = api.Masked
		}
	}
	box := api.Sandbox{
		ID: cfg.ID, State: st.State, Reason: st.Reason, Owner: st.Owner, Config: cfg, Network: rec.Policy(), Ports: rec.Published(),
		ImageDigest: rec.Config.ImageDigest, KernelID: rec.Config.KernelID, KernelRelease: st.KernelRelease, CreatedAt: rec.Config.CreatedAt,
		StartedAt: st.StartedAt, StoppedAt: st.StoppedAt, ExpiresAt: st.ExpiresAt, Dir: dir,
	}
	if !st.State.Live() {
		return box
	}
	box.Accelerator = st.Accelerator
	if st.Supervisor != nil {
		box.SupervisorPID = st.Supervisor.PID
	}
	if h, ok := Handle(st); ok {
		box.VMMPID, box.Engine = h.PID, strings.TrimSpace(h.Engine+" "+h.EngineVer)
		box.Confinement = strings.Join(h.Confinement, ", ")
		if len(h.Unconfined) > 0 {
			box.Confinement = strings.TrimPrefix(box.Confinement+"; missing: "+strings.Join(h.Unconfined, "; "), "; ")
		}
	}
	return box
}

// Handle reads what the engine left in the record.
func Handle(st store.State) (engine.Handle, bool) {
	var h engine.Handle
	if len(st.Engine) == 0 || json.Unmarshal(st.Engine, &h) != nil {
		return engine.Handle{}, false
	}
	return h, true
}
