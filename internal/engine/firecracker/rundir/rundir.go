// Package rundir is the directory in which a Firecracker makes its sockets, and the way over them. It is the monitor's own, so
// what lies in it is looked at with care.
//
// Layer: engine/firecracker. It imports internal/guest/link and internal/sys.
package rundir

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/sys/dirwatch"
	"github.com/smolvm/smolvm/internal/sys/sockpath"
)

// The monitor's sockets. It is told of them by these names, without a path: whatever the
// directory's path is they are short enough, and a machine that was restored from another's snapshot makes its own.
const (
	Name        = "monitor" // of the directory, beside the agent's socket
	APISocket   = "api.sock"
	VsockSocket = "vsock.sock"
)

// Dir is the monitor's working directory.
type Dir struct {
	Path string
	dir  *sockpath.Dir
}

// Make makes the directory beside the agent's socket, in place of what a former monitor left.
func Make(agentPath string, uid uint32) (_ *Dir, err error) {
	path := filepath.Join(filepath.Dir(agentPath), Name)
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(path)
		}
	}()
	if uid != 0 {
		if err := os.Lchown(path, int(uid), int(uid)); err != nil {
			return nil, err
		}
	}
	dir, err := sockpath.Open(path)
	if err != nil {
		return nil, err
	}
	return &Dir{Path: path, dir: dir}, nil
}

// Remove takes the directory away.
func (d *Dir) Remove() {
	_ = d.dir.Close()
	_ = os.RemoveAll(d.Path)
}

// Scratch makes a file on the directory's file system that has no name: what is in it is gone when nobody has it open.
func (d *Dir) Scratch(name string) (*os.File, error) {
	path := d.dir.Path(name)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600) //nolint:gosec // ours, no monitor runs yet
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Socket waits for the monitor to make a socket, and holds it. What has its name later is another one: the monitor, if it
// is not itself any more, cannot have us speak to a stranger's socket in its stead.
func (d *Dir) Socket(ctx context.Context, gone <-chan struct{}, name string) (*Socket, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-gone:
			cancel(errors.New("the monitor has ended"))
		case <-ctx.Done():
		}
	}()
	w, err := dirwatch.Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.Close() }()
	if err := w.Add(d.dir.Path(".")); err != nil {
		return nil, err
	}
	for {
		s, err := openSocket(d.dir.Path(name))
		if !errors.Is(err, os.ErrNotExist) {
			return s, err
		}
		if _, err := w.Wait(ctx); err != nil {
			return nil, fmt.Errorf("wait for its socket %s: %w", name, err)
		}
	}
}

// Socket is a unix socket that stays the same whatever is done to its name.
type Socket struct{ file *os.File }

func openSocket(path string) (*Socket, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), filepath.Base(path))
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		err = errors.New("it is no socket")
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("its socket %s: %w", filepath.Base(path), err)
	}
	return &Socket{f}, nil
}

// Dial connects.
func (s *Socket) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(int(s.file.Fd())))
}

// Listens waits until somebody listens: a socket is there a moment before that, and nothing tells of it.
func (s *Socket) Listens(ctx context.Context, gone <-chan struct{}) error {
	for {
		c, err := s.Dial(ctx)
		if err == nil {
			return c.Close()
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			return err
		}
		select {
		case <-time.After(time.Millisecond):
		case <-gone:
			return errors.New("the monitor has ended")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close gives it up.
func (s *Socket) Close() { _ = s.file.Close() }
