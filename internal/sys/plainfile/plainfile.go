// Package plainfile opens files that a user named by their path: only regular ones, and only those that lie where the path says.
//
// Layer: leaf. It imports none of ours.
package plainfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNotRegular is returned for a directory, a device, a pipe, a socket.
var ErrNotRegular = errors.New("it is no regular file")

// Resolve follows the links in path and returns where its file lies, absolute.
func Resolve(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// Own opens a file of ours. Its name alone may not be that of a link.
func Own(path string, flag int) (*os.File, error) { return os.OpenFile(path, flag|unix.O_NOFOLLOW, 0) }

// Open opens a regular file. A symbolic link anywhere in the path is refused: Resolve gives a path without any, and
// what has become one since leads elsewhere. It waits for nobody, as the opening of a pipe would.
func Open(path string, flag int) (*os.File, error) {
	how := unix.OpenHow{Flags: uint64(flag) | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // older than Linux 5.6, or a filter that does not know the call
		fd, err = unix.Open(path, int(how.Flags)|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path) //nolint:gosec // a descriptor
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", path, ErrNotRegular)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
