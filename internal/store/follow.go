package store

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/dirwatch"
	"github.com/smolvm/smolvm/internal/sys/pidfd"
)

// Follower copies a file as it grows.
type Follower struct {
	path string
	w    io.Writer
	f    *os.File
	at   int64
}

// NewFollower returns one of the file at path, which need not be there yet.
func NewFollower(path string, w io.Writer) *Follower { return &Follower{path: path, w: w} }

// Close ends it.
func (f *Follower) Close() {
	if f.f != nil {
		_ = f.f.Close()
	}
}

// Copy copies what is new. A file that has become shorter was begun anew or cut in its middle: what is there now comes
// whole.
func (f *Follower) Copy() error {
	if f.f == nil {
		file, err := os.Open(f.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return errdefs.Host.Errorf("read the log: %w", err)
		}
		f.f = file
	}
	st, err := f.f.Stat()
	if err != nil {
		return errdefs.Host.Errorf("read the log: %w", err)
	}
	if st.Size() < f.at {
		f.at = 0
	}
	n, err := io.Copy(f.w, io.NewSectionReader(f.f, f.at, st.Size()-f.at))
	f.at += n
	return err
}

// errEnded is why a log does not go on.
var errEnded = errors.New("the VM has ended")

// FollowDir calls copy whenever something in dir was written, and goes on until the supervisor has ended or ctx does; what
// wakes it up are the kernel's notices of writes.
func FollowDir(ctx context.Context, dir string, supervisor Process, copy func() error) error {
	w, err := dirwatch.Open()
	if err == nil {
		defer func() { _ = w.Close() }()
		err = w.Add(dir)
	}
	if err != nil {
		return errdefs.Host.Errorf("watch the log: %w", err)
	}
	watch, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		if p, err := pidfd.Open(supervisor.PID, supervisor.StartTicks); err == nil {
			defer func() { _ = p.Close() }()
			_ = p.Wait(watch)
		}
		cancel(errEnded)
	}()
	for {
		if err := copy(); err != nil {
			return err
		}
		_, err := w.Wait(watch)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errEnded):
			return copy()
		case err != nil:
			return errdefs.Host.Errorf("watch the log: %w", err)
		}
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil // the VM was deleted, and its log with it
		}
	}
}

// LastWords is the end of the log of a VM's supervisor.
func (s *Store) LastWords(id string) string {
	b, err := os.ReadFile(s.Path(id, SupervisorLogFile))
	if err != nil || len(b) == 0 {
		return "it said nothing"
	}
	return strings.TrimSpace(string(b[max(0, len(b)-2000):]))
}
