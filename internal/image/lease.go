package image

import (
	"context"
	"errors"
	"os"
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

// Hold takes a shared lock on an image and a kernel for as long as the lease lives.
func (s *Store) Hold(img api.Image, k api.Kernel) (Lease, error) {
	var held lease
	for _, name := range []string{imageLock(img.Digest), kernelLock(k.ID)} {
		l, err := lock.TryShared(s.lockFile(name))
		if errors.Is(err, lock.ErrHeld) {
			err = errdefs.WrongState.Errorf("%s is being removed", name)
		}
		if err != nil {
			_ = held.Close()
			return nil, err
		}
		held = append(held, l)
	}
	// They could have gone between the caller's look and our lock.
	for _, dir := range []string{s.imageDir(hexOf(img.Digest)), s.kernelDir(k.ID)} {
		if _, err := os.Stat(dir); err != nil {
			_ = held.Close()
			return nil, errdefs.NotFound.Errorf("%s is not in the cache any more: %w", dir, err)
		}
	}
	return held, nil
}

func imageLock(digest string) string { return "image-" + hexOf(digest) }
func kernelLock(id string) string    { return "kernel-" + id }

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
