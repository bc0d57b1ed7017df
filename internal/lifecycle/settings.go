package lifecycle

import (
	"context"
	"os"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
)

// change asks the supervisor of a VM that runs, or changes the record of one that does not, under its lock.
func (m *Manager) change(ctx context.Context, id string, ask func(*rpc.Client) error, save func(store.Record) error) error {
	m.sweep()
	rec, err := m.settle(ctx, id)
	if err != nil {
		return err
	}
	if rec.State.State.Live() {
		c, err := m.dial(ctx, id)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		return ask(c)
	}
	l, err := m.lockIdle(ctx, id, "")
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	if rec, err = m.settleLocked(ctx, id); err != nil {
		return err
	}
	return save(rec)
}

// SetOwner is Own with owner keep, or with owner client and this process.
func (m *Manager) SetOwner(ctx context.Context, id string, who api.Owner) error {
	return m.Own(ctx, id, api.OwnerRequest{Owner: who})
}

// Own changes who decides that the VM may go: keep is how `run --keep` and `-d` let go of it, and a lease is renewed so.
func (m *Manager) Own(ctx context.Context, id string, r api.OwnerRequest) error {
	rule, err := store.NewRule(r)
	if err != nil {
		return err
	}
	if r.Owner == api.OwnerClient && r.ClientPID == 0 {
		r.ClientPID = os.Getpid()
	}
	return m.change(ctx, id, func(c *rpc.Client) error {
		return c.SetOwner(ctx, rpc.OwnerRequest{Owner: rule.Owner, Client: r.ClientPID, LeaseMs: r.LeaseMs})
	}, func(rec store.Record) error {
		rec.State.BootID = bootID() // pids and times of the rule are of this one
		rec.State.SetRule(rule)
		return m.store.SaveState(id, rec.State)
	})
}

// SetTTL says how long the VM may run from now on, and from its next starts on; 0 = as long as it likes.
func (m *Manager) SetTTL(ctx context.Context, id string, ttl time.Duration) error {
	if err := api.ValidateTTL(ttl); err != nil {
		return err
	}
	return m.change(ctx, id, func(c *rpc.Client) error { return c.SetTTL(ctx, ttl) }, func(store.Record) error {
		_, err := m.store.ChangeConfig(ctx, id, func(c *api.Config) error { c.TTLMs = ttl.Milliseconds(); return nil })
		return err
	})
}

// SetEnv changes the environment of the VM's commands: of all that are started from then on, if it runs. It returns the whole.
func (m *Manager) SetEnv(ctx context.Context, id string, change api.EnvChange) (env map[string]string, err error) {
	if err := change.Validate(); err != nil {
		return nil, err
	}
	err = m.change(ctx, id, func(c *rpc.Client) (err error) { env, err = c.SetEnv(ctx, change); return err }, func(store.Record) error {
		env, err = m.store.ChangeEnv(ctx, id, change, nil)
		return err
	})
	return env, err
}

// SetSecrets gives a VM's secrets other values, which are in use when it returns, and other sources. Of one that does not run only
// sources can be changed: its values are asked for when it starts.
func (m *Manager) SetSecrets(ctx context.Context, id string, c api.SecretChange) error {
	if err := c.Validate(); err != nil {
		return err
	}
	return m.change(ctx, id, func(r *rpc.Client) error { return r.SetSecrets(ctx, c) }, func(rec store.Record) error {
		if len(c.Sources) == 0 {
			return errdefs.WrongState.Errorf("the VM %s is %s: the values of its secrets are asked for when it starts", id, rec.State.State).WithRemedy("smolvm start %s", id)
		}
		_, err := m.store.ChangeSecrets(ctx, id, c)
		return err
	})
}
