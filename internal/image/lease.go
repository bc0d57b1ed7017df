package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/lock"
)

// Lease keeps what it names from being removed until it is closed (a shared lock).
type Lease interface {
	// Files are the locked descriptors. A child that inherits them holds the lease too.
	Files() []*os.File
	// Close gives up this process's copy of the lease.
	Close() error
}

type lease []*lock.Lock

func (l lease) Files() []*os.File {
	var files []*os.File
	for _, held := range l {
		files = append(files, held.File())
	}
	return files
}

func (l lease) Close() error {
	var errs []error
	for _, held := range l {
		errs = append(errs, held.Close())
	}
	return errors.Join(errs...)
}

// Held names content to hold: an image's digest, a kernel's id, a directory of BuiltDir. "" names nothing.
type Held struct{ Image, Kernel, Built string }

// Hold takes shared locks on content for as long as the lease lives.
func (s *Store) Hold(h Held) (Lease, error) {
	var held lease
	for _, c := range []struct{ name, lock, dir string }{
		{h.Image, imageLock(h.Image), s.imageDir(hexOf(h.Image))},
		{h.Kernel, kernelLock(h.Kernel), s.kernelDir(h.Kernel)},
		{h.Built, builtLock(h.Built), filepath.Join(s.BuiltDir(), h.Built)},
	} {
		if c.name == "" {
			continue
		}
		l, err := lock.TryShared(s.lockFile(c.lock))
		if errors.Is(err, lock.ErrHeld) {
			err = errdefs.WrongState.Errorf("%s is being removed", c.lock)
		}
		if err != nil {
			_ = held.Close()
			return nil, err
		}
		held = append(held, l)
		// It could have gone between the caller's look and our lock.
		if _, err := os.Stat(c.dir); err != nil {
			_ = held.Close()
			return nil, errdefs.NotFound.Errorf("%s is not in the cache any more: %w", c.dir, err)
		}
	}
	return held, nil
}

func imageLock(digest string) string { return "image-" + hexOf(digest) }
func kernelLock(id string) string    { return "kernel-" + id }
func builtLock(name string) string   { return "built-" + name }

// LockBuilt makes this process the only one that lays out directories in BuiltDir.
func (s *Store) LockBuilt(ctx context.Context, progress api.ProgressFunc) (unlock func(), err error) {
	return s.lockBuild(ctx, "built", progress)
}

// RemoveBuilt deletes a directory of BuiltDir that no VM holds.
func (s *Store) RemoveBuilt(ctx context.Context, name string) error {
	unlock, err := s.LockBuilt(ctx, nil)
	if err != nil {
		return err
	}
	defer unlock()
	if !builtRule.MatchString(name) {
		return errdefs.Invalid.Errorf("%q was not laid out by us", name)
	}
	return s.removeHeld(builtLock(name), "image "+name, filepath.Join(s.BuiltDir(), name), filepath.Join(s.BuiltDir(), tempPrefix+"rm-"+name))
}

// lockBuild makes this process the only one that makes content of a kind. One that waits tells so.
func (s *Store) lockBuild(ctx context.Context, kind string, progress api.ProgressFunc) (unlock func(), err error) {
	path := s.lockFile("build-" + kind)
	for told := false; ; {
		l, err := lock.Try(path)
		if err == nil {
			return func() { _ = l.Close() }, nil
		}
		if !errors.Is(err, lock.ErrHeld) {
			return nil, errdefs.Host.Errorf("lock the cache: %w", err).WithRemedy("smolvm doctor; another place is chosen by smolvm --home DIR, or SMOLVM_HOME")
		}
		if !told && progress != nil {
			progress(api.Progress{Stage: kind, Detail: "wait for another smolvm that is making it"})
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
