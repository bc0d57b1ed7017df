// Package sockpath reaches unix sockets by directory and name, however long the directory's path is: an address holds 108
// bytes, so that the socket is named through a descriptor of its directory.
//
// Layer: leaf. It imports none of ours.
package sockpath

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Dir is a directory in which sockets lie. Its paths are good in this process only, until Close.
type Dir struct{ f *os.File }

// Open opens a directory.
func Open(path string) (*Dir, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &Dir{f: os.NewFile(uintptr(fd), path)}, nil
}

// Close closes the directory.
func (d *Dir) Close() error { return d.f.Close() }

// Path is a short path of the socket called name.
func (d *Dir) Path(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.f.Fd(), name)
}

// Listen makes the socket called name, in place of one that nobody may be using any more.
func (d *Dir) Listen(name string) (*net.UnixListener, error) {
	if err := unix.Unlinkat(int(d.f.Fd()), name, 0); err != nil && err != unix.ENOENT { //nolint:errorlint // a plain errno
		return nil, fmt.Errorf("remove the old socket %s: %w", filepath.Join(d.f.Name(), name), err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: d.Path(name)})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", filepath.Join(d.f.Name(), name), err)
	}
	l.SetUnlinkOnClose(false) // it goes with its directory; another one may have its name by then
	return l, nil
}

// Dial connects to the socket called name.
func (d *Dir) Dial(ctx context.Context, name string) (net.Conn, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", d.Path(name))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", filepath.Join(d.f.Name(), name), err)
	}
	return c, nil
}
