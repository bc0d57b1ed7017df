package firecracker

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

// The monitor's sockets, in its own directory. It is told of them by these names, without a path: whatever the
// directory's path is they are short enough, and a machine that was restored from another's snapshot makes its own.
const (
	runDirName  = "monitor"
	apiSocket   = "api.sock"
	vsockSocket = "vsock.sock"
)

// runDir is the monitor's working directory, where it makes its sockets. It is the monitor's own, so what lies in it is
// looked at with care.
type runDir struct {
	path string
	dir  *sockpath.Dir
}

// makeRunDir makes the directory beside the agent's socket, in place of what a former monitor left.
func makeRunDir(agentPath string, uid uint32) (_ *runDir, err error) {
	path := filepath.Join(filepath.Dir(agentPath), runDirName)
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
	return &runDir{path: path, dir: dir}, nil
}

// remove takes the directory away.
func (d *runDir) remove() {
	_ = d.dir.Close()
	_ = os.RemoveAll(d.path)
}

// socket waits for the monitor to make a socket, and holds it. What has its name later is another one: the monitor, if it
// is not itself any more, cannot have us speak to a stranger's socket in its stead.
func (d *runDir) socket(ctx context.Context, gone <-chan struct{}, name string) (*socket, error) {
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

// socket is a unix socket that stays the same whatever is done to its name.
type socket struct{ file *os.File }

func openSocket(path string) (*socket, error) {
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
	return &socket{f}, nil
}

func (s *socket) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(int(s.file.Fd())))
}

// listens waits until somebody listens: a socket is there a moment before that, and nothing tells of it.
func (s *socket) listens(ctx context.Context, gone <-chan struct{}) error {
	for {
		c, err := s.dial(ctx)
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

func (s *socket) close() { _ = s.file.Close() }
