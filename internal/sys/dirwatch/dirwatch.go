// Package dirwatch tells when something in a directory changes, by inotify(7).
//
// Layer: leaf.
package dirwatch

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Watcher watches directories, not what is below their subdirectories.
type Watcher struct {
	fd   int
	file *os.File
	dirs map[int32]string
}

// Open returns a watcher of nothing. It belongs to one goroutine.
func Open() (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	return &Watcher{fd: fd, file: os.NewFile(uintptr(fd), "inotify"), dirs: map[int32]string{}}, nil
}

// Add watches a directory too.
func (w *Watcher) Add(dir string) error {
	const what = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	n, err := unix.InotifyAddWatch(w.fd, dir, what|unix.IN_ONLYDIR)
	if err != nil {
		return &os.PathError{Op: "inotify_add_watch", Path: dir, Err: err}
	}
	w.dirs[int32(n)] = dir
	return nil
}

// Close ends the watch.
func (w *Watcher) Close() error { return w.file.Close() }

// Wait returns the directories in which something changed since the last call, or all of them where too much did.
func (w *Watcher) Wait(ctx context.Context) ([]string, error) {
	defer context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 64<<10)
	n, err := w.file.Read(buf)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	var changed []string
	for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
		dir, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
		b = b[min(len(b), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(b[12:]))):]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			changed = changed[:0]
			for _, d := range w.dirs {
				changed = append(changed, d)
			}
			return changed, nil
		}
		if d := w.dirs[dir]; d != "" && !slices.Contains(changed, d) {
			changed = append(changed, d)
		}
		if mask&unix.IN_IGNORED != 0 {
			delete(w.dirs, dir)
		}
	}
	return changed, nil
}
