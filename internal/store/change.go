package store

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/lock"
)

// LockConfig makes the caller the only one who changes the configuration of the VM id, which may run meanwhile: it reads
// that when it starts.
func (s *Store) LockConfig(ctx context.Context, id string) (*lock.Lock, error) {
	if err := s.prepare(); err != nil {
		return nil, err
	}
	l, err := lock.Exclusive(ctx, filepath.Join(s.locksDir(), "config-"+id))
	if err != nil {
		return nil, hostError("lock the configuration of the VM "+id, err)
	}
	return l, nil
}

// SaveConfig writes the configuration of the VM id. The caller holds LockConfig.
func (s *Store) SaveConfig(id string, c Config) error {
	c.Schema = schema
	return write(s.Path(id, configFile), c)
}

// ChangeConfig changes the configuration of the VM id and returns what it was.
func (s *Store) ChangeConfig(ctx context.Context, id string, change func(*api.Config) error) (former api.Config, err error) {
	l, err := s.LockConfig(ctx, id)
	if err != nil {
		return api.Config{}, err
	}
	defer func() { _ = l.Close() }()
	rec, err := s.Read(id)
	if err != nil {
		return api.Config{}, err
	}
	former = rec.Config.Config
	if err := change(&rec.Config.Config); err != nil {
		return former, err
	}
	if err := rec.Config.Config.Validate(); err != nil {
		return former, err
	}
	return former, s.SaveConfig(id, rec.Config)
}

// ChangeEnv changes the environment of the VM id and returns the whole. apply gets it once it is written; when that fails, the
// record is as it was. It may be nil.
func (s *Store) ChangeEnv(ctx context.Context, id string, change api.EnvChange, apply func(map[string]string) error) (env map[string]string, err error) {
	if err := change.Validate(); err != nil {
		return nil, err
	}
	former, err := s.ChangeConfig(ctx, id, func(c *api.Config) error {
		env, err = change.Apply(c.Env)
		c.Env = env
		return err
	})
	if err != nil || apply == nil {
		return env, err
	}
	if err := apply(env); err != nil {
		_, berr := s.ChangeConfig(context.WithoutCancel(ctx), id, func(c *api.Config) error { c.Env = former.Env; return nil })
		return nil, errors.Join(err, berr)
	}
	return env, nil
}

// ChangeSecrets changes where the values of the VM id's secrets are found. back undoes that.
func (s *Store) ChangeSecrets(ctx context.Context, id string, change api.SecretChange) (back func() error, err error) {
	if len(change.Sources) == 0 {
		return func() error { return nil }, nil
	}
	former, err := s.ChangeConfig(ctx, id, func(c *api.Config) (err error) { c.Secrets, err = change.Apply(c.Secrets); return err })
	return func() error {
		_, err := s.ChangeConfig(context.WithoutCancel(ctx), id, func(c *api.Config) error { c.Secrets = former.Secrets; return nil })
		return err
	}, err
}

// Rename gives the VM from the id to. The caller holds the locks of both, and from's LockConfig; from does not run. A crash
// in the middle leaves it with its old id.
func (s *Store) Rename(from, to string) error {
	rec, err := s.Read(from)
	if err != nil {
		return err
	}
	next := rec.Config
	next.Config.ID, next.Was = to, from
	if err := s.SaveConfig(from, next); err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, s.Dir(from), unix.AT_FDCWD, s.Dir(to), unix.RENAME_NOREPLACE)
	if errors.Is(err, fs.ErrExist) {
		err = errdefs.AlreadyExists.Errorf("there is already a VM %q", to).WithRemedy("smolvm ls -a")
	}
	if err != nil {
		return errors.Join(hostError("rename the VM "+from, err), s.SaveConfig(from, rec.Config))
	}
	return nil
}

// DiskUsed is the space that the disk of the VM id takes on the host, in bytes.
func (s *Store) DiskUsed(id string) uint64 {
	var st unix.Stat_t
	if unix.Stat(s.Path(id, DiskFile), &st) != nil {
		return 0
	}
	return uint64(st.Blocks) * 512
}
