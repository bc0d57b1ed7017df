package lifecycle

import (
	"context"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/bootfile"
	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/publish"
	"github.com/smolvm/smolvm/internal/network/secret"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/sys/cgroup"
	"github.com/smolvm/smolvm/internal/sys/fault"
	"github.com/smolvm/smolvm/internal/sys/launch"
)

// Create writes the record of a new VM; it is not started. An empty cfg.ID gets a made-up one. The image and the kernel
// are made when they are absent.
func (m *Manager) Create(ctx context.Context, cfg api.Config, o CreateOptions) (api.Sandbox, error) {
	if cfg.ID == "" {
		cfg.ID = store.NewID()
	}
	if err := cfg.WithDefaults().Validate(); err != nil { // before any file is looked at
		return api.Sandbox{}, err
	}
	cfg, src, err := bootfile.Resolve(cfg, launch.IsRoot())
	if err != nil {
		return api.Sandbox{}, err
	}
	if cfg, err = secret.Enroll(cfg.WithDefaults(), o.Secrets); err != nil {
		return api.Sandbox{}, err
	}
	if err := cfg.Validate(); err != nil {
		return api.Sandbox{}, err
	}
	if err := enforceable(cfg); err != nil {
		return api.Sandbox{}, err
	}
	if err := m.opts.Engines.Check(cfg.Engine); err != nil {
		return api.Sandbox{}, err
	}
	rule, err := store.NewRule(o.rule())
	if err != nil {
		return api.Sandbox{}, err
	}
	if o.Start {
		files, _, err := publish.Take(ctx, cfg.Ports)
		if err != nil {
			return api.Sandbox{}, err
		}
		publish.Drop(files)
	}
	m.sweep()
	// An abandoned one may have the name.
	if _, err := m.settle(ctx, cfg.ID); err == nil {
		return api.Sandbox{}, errdefs.AlreadyExists.Errorf("there is already a VM %q", cfg.ID).WithRemedy("smolvm rm -f %s", cfg.ID)
	}
	if src, err = bootfile.Ensure(ctx, m.opts.Images, cfg, src, o.Progress); err != nil {
		return api.Sandbox{}, err
	}
	rec := store.Record{
		Config: store.Config{
			Config: cfg, ImageDigest: src.ImageDigest, KernelID: src.KernelID, RootfsMark: src.RootfsMark, KernelMark: src.KernelMark,
			DiskUUID: store.NewUUID(), CreatedAt: time.Now().UTC(),
		},
		State: store.State{State: api.StateCreated},
	}
	rec.State.SetRule(rule)
	rec.State.Renew() // images may have been made meanwhile
	if rec.State.BootID, err = store.HostBootID(); err != nil {
		return api.Sandbox{}, err
	}
	if err := m.publish(ctx, rec); err != nil {
		return api.Sandbox{}, err
	}
	m.log.Debug("created", "vm", cfg.ID, "image", src.ImageDigest, "kernel", src.KernelID, "dir", m.store.Dir(cfg.ID))
	return m.sandbox(rec, false), nil
}

// enforceable refuses a policy and limits that this host cannot hold a VM to.
func enforceable(cfg api.Config) error {
	if _, err := network.Compile(cfg.Network, network.Options{SecretHosts: secret.Hosts(cfg.Secrets)}); err != nil {
		return err
	}
	if cfg.CPUShare == 0 {
		return nil
	}
	if _, err := cgroup.Find(cgroup.Limits{CPUPercent: cfg.CPUShare}); err != nil {
		return errdefs.Host.Errorf("cpu share: no control group can be made to enforce it: %w", err).
			WithRemedy("run it as root, or where a cgroup with the cpu controller is delegated to you: systemd-run --user --scope -p Delegate=yes smolvm …")
	}
	return nil
}

// publish makes the VM's directory; on an error nothing of it is left.
func (m *Manager) publish(ctx context.Context, rec store.Record) error {
	claim, err := m.store.Claim(ctx, rec.Config.Config.ID)
	if err != nil {
		return err
	}
	defer claim.Abandon()
	fault.Point("create.claimed")
	if err := image.NewDisk(claim.Path(store.DiskFile), rec.Config.Config.DiskMiB); err != nil {
		return err
	}
	fault.Point("create.disk")
	err = claim.Publish(rec)
	fault.Point("create.published")
	return err
}
