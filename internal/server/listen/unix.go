// Package listen makes the places where the HTTP API is answered: a unix socket for our own user, and TCP.
//
// Layer: part of the front server. It may import errdefs, internal/sys.
package listen

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/sockpath"
)

// Unix makes a socket that only our own user may connect to. A socket there that nobody answers at any more is replaced; a
// directory that is missing is made.
func Unix(ctx context.Context, path string, log *slog.Logger) (net.Listener, error) {
	dir, name := filepath.Split(path)
	if name == "" {
		return nil, errdefs.Invalid.Errorf("socket: %q is no file's name", path)
	}
	if dir == "" {
		dir = "."
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errdefs.Host.Errorf("socket: make its directory: %w", err)
	}
	turn, err := private(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = turn.Close() }() // which lets the next one in
	if err := vacate(ctx, dir, name); err != nil {
		return nil, err
	}
	l, err := bind(dir, name)
	if err != nil {
		return nil, errdefs.Host.Errorf("socket: listen at %s: %w", path, err)
	}
	st, err := os.Lstat(path)
	if err != nil {
		_ = l.Close()
		return nil, errdefs.Host.Errorf("socket: %w", err)
	}
	return &own{UnixListener: l, path: path, made: st, log: log}, nil
}

// private refuses a directory in which others could put a socket of theirs in the place of ours, and returns our turn to
// change what is in it: two that start at once do not take each other's socket away.
func private(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, errdefs.Host.Errorf("socket: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, errdefs.Host.Errorf("socket: %w", err)
	}
	var raw unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &raw); err == nil && int(raw.Uid) != os.Geteuid() && raw.Uid != 0 || st.Mode().Perm()&0o022 != 0 && st.Mode()&fs.ModeSticky == 0 {
		_ = f.Close()
		return nil, errdefs.Denied.Errorf("socket: others may change what is in %s", dir).WithRemedy("chmod 700 %s, or name another directory", dir)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, errdefs.Host.Errorf("socket: wait for our turn in %s: %w", dir, err)
	}
	return f, nil
}

// vacate removes a socket that nobody answers at.
func vacate(ctx context.Context, dir, name string) error {
	path := filepath.Join(dir, name)
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return errdefs.Host.Errorf("socket: %w", err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return errdefs.AlreadyExists.Errorf("socket: %s is there and no socket", path).WithRemedy("name another path")
	}
	d, err := sockpath.Open(dir)
	if err != nil {
		return errdefs.Host.Errorf("socket: %w", err)
	}
	defer func() { _ = d.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := d.Dial(ctx, name)
	switch {
	case err == nil:
		_ = c.Close()
		return errdefs.AlreadyExists.Errorf("socket: a server answers at %s already", path).WithRemedy("use that one, or name another path")
	case !errors.Is(err, unix.ECONNREFUSED):
		return errdefs.AlreadyExists.Errorf("socket: %s is there: %w", path, err).WithRemedy("name another path")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errdefs.Host.Errorf("socket: %w", err)
	}
	return nil
}

// bind makes the socket in a directory of its own and moves it into its place once nobody else may connect: there is no time
// in which it is open to others, and no umask, which is the whole process's.
func bind(dir, name string) (*net.UnixListener, error) {
	tmp, err := os.MkdirTemp(dir, ".smolvm-*") // 0700
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	d, err := sockpath.Open(tmp) // however long the path is
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close() }()
	l, err := d.Listen(name)
	if err != nil {
		return nil, err
	}
	from, to := filepath.Join(tmp, name), filepath.Join(dir, name)
	err = os.Chmod(from, 0o600)
	if err == nil {
		err = os.Rename(from, to)
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// own is a socket at which our own user alone is heard.
type own struct {
	*net.UnixListener
	path string
	made os.FileInfo
	log  *slog.Logger
	once sync.Once
}

// Accept implements net.Listener.
func (o *own) Accept() (net.Conn, error) {
	for {
		c, err := o.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, pid, err := sockpath.Peer(c)
		if err == nil && int(uid) == os.Geteuid() {
			return c, nil
		}
		o.log.Warn("refused a connection of another user", "uid", uid, "pid", pid, "error", err)
		_ = c.Close()
	}
}

// Close ends it, and takes the socket away unless another one has its place.
func (o *own) Close() error {
	o.once.Do(func() {
		if st, err := os.Lstat(o.path); err == nil && os.SameFile(st, o.made) {
			_ = os.Remove(o.path)
		}
	})
	return o.UnixListener.Close()
}
