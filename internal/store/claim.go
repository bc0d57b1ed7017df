package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/lock"
)

// Claim is a VM that is being made: its name is taken, its directory not yet where VMs are. It ends by Publish, or by
// Abandon; a claim whose process died is found by Sweep.
type Claim struct {
	store *Store
	id    string
	lock  *lock.Lock
	dir   string // until it is published
}

// claimWait bounds the wait for a lock whose VM is gone: its supervisor is just ending.
const claimWait = 5 * time.Second

// Claim takes the name id. Of two that want it one wins; the other gets already_exists.
func (s *Store) Claim(ctx context.Context, id string) (*Claim, error) {
	if err := api.ValidateID(id); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	if s.Exists(id) {
		return nil, taken(id)
	}
	wait, cancel := context.WithTimeout(ctx, claimWait)
	defer cancel()
	l, err := lock.Exclusive(wait, s.lockPath(id))
	if err != nil {
		if ctx.Err() == nil && (errors.Is(err, lock.ErrHeld) || errors.Is(err, context.DeadlineExceeded)) {
			return nil, taken(id)
		}
		return nil, hostError("lock the VM "+id, err)
	}
	c := &Claim{store: s, id: id, lock: l, dir: filepath.Join(s.vms(), newPrefix+id)}
	if s.Exists(id) { // another one published it while we waited
		_ = l.Close()
		return nil, taken(id)
	}
	err = os.RemoveAll(c.dir) // of a claim that died
	if err == nil {
		err = os.Mkdir(c.dir, 0o700)
	}
	if err != nil {
		c.Abandon()
		return nil, hostError("make the VM "+id, err)
	}
	return c, nil
}

func taken(id string) error {
	return errdefs.AlreadyExists.Errorf("there is already a VM %q", id).WithRemedy("smolvm rm -f %s", id)
}

// Path is where a file of the VM is made.
func (c *Claim) Path(name string) string { return filepath.Join(c.dir, name) }

// Publish writes the record and shows the VM, complete, in one step. The claim is over.
func (c *Claim) Publish(r Record) error {
	r.Config.Schema, r.State.Schema = schema, schema
	if err := r.check(c.id); err != nil {
		return errdefs.Internal.Errorf("the record of the VM %s: %w", c.id, err)
	}
	if err := write(c.Path(configFile), r.Config); err != nil {
		return err
	}
	if err := write(c.Path(stateFile), r.State); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, c.dir, unix.AT_FDCWD, c.store.Dir(c.id), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // a file system without that; the lock keeps others away
		err = os.Rename(c.dir, c.store.Dir(c.id))
	}
	if err != nil {
		return hostError("make the VM "+c.id, err)
	}
	c.dir = ""
	return syncDir(c.store.vms())
}

// Abandon gives the name up, with what was made, unless the claim was published. It is meant for defer.
func (c *Claim) Abandon() {
	if c.dir != "" {
		_ = os.RemoveAll(c.dir) // what stays, Sweep finds
	}
	_ = c.lock.Close()
}

// syncDir makes renames in a directory lasting.
func syncDir(path string) error {
	d, err := os.Open(path) //nolint:gosec // our own directory
	if err != nil {
		return hostError("open "+path, err)
	}
	defer func() { _ = d.Close() }()
	return hostError("sync "+path, d.Sync())
}
