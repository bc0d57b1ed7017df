// Package lock takes OFD locks on files. Such a lock belongs to the open file: it is inherited by children that get the
// descriptor, and is free when the last copy is closed, however its holders end. It is never unlocked, only closed, and
// the file is never unlinked.
//
// Layer: leaf. It imports none of ours.
package lock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld is returned where somebody else holds a lock that conflicts.
var ErrHeld = errors.New("lock is held")

// Lock is a lock that is held. Close gives up this process's copy of it.
type Lock struct{ f *os.File }

// Try takes the lock on path for this holder alone, or returns ErrHeld at once. The file is made if it is absent.
func Try(path string) (*Lock, error) { return try(path, unix.F_WRLCK) }

// TryShared takes the lock on path together with others, or returns ErrHeld at once.
func TryShared(path string) (*Lock, error) { return try(path, unix.F_RDLCK) }

// Exclusive is Try that waits until the lock is free or ctx ends.
func Exclusive(ctx context.Context, path string) (*Lock, error) { return wait(ctx, path, Try) }

// Shared is TryShared that waits until no one holds the lock alone, or ctx ends.
func Shared(ctx context.Context, path string) (*Lock, error) { return wait(ctx, path, TryShared) }

// File is the descriptor to hand to a child that shall hold the lock too.
func (l *Lock) File() *os.File { return l.f }

// Close gives up this process's copy of the lock.
func (l *Lock) Close() error { return l.f.Close() }

// Held reports whether anybody holds the lock on path, without taking it.
func Held(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0) //nolint:gosec // the caller's own lock file
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	fl := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &fl); err != nil {
		return false, fmt.Errorf("probe the lock %s: %w", path, err)
	}
	return fl.Type != unix.F_UNLCK, nil
}

func try(path string, kind int16) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the caller's own lock file
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind})
	if err == nil {
		return &Lock{f: f}, nil
	}
	_ = f.Close()
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("%s: %w", path, ErrHeld)
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// wait polls: a blocking lock call cannot be ended by a context.
func wait(ctx context.Context, path string, try func(string) (*Lock, error)) (*Lock, error) {
	for {
		l, err := try(path)
		if !errors.Is(err, ErrHeld) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
