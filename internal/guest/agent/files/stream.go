package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// bufferSize is a stream's only memory, and the size of an HTTP frame: each read of a body makes the agent send two small frames
// for the flow control, which cost a guest more than a large copy.
const bufferSize = 512 << 10

// Buffers lends stream buffers.
type Buffers struct{ pool sync.Pool }

func (b *Buffers) copy(dst io.Writer, src io.Reader) (int64, error) {
	buf, ok := b.pool.Get().(*[]byte)
	if !ok {
		p := make([]byte, bufferSize)
		buf = &p
	}
	defer b.pool.Put(buf)
	// The wrappers hide shortcuts that would use smaller buffers.
	return io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, *buf)
}

// Open opens a regular file for reading. It does not wait for a writer when the file is a pipe.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is a %s, not a regular file", ErrPath, path, typeOf(st.Mode()))
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Read copies length bytes from offset, or all for a negative length, to w.
func (b *Buffers) Read(w io.Writer, f *os.File, offset, length int64) error {
	if offset > 0 {
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			return err
		}
	}
	var r io.Reader = f
	if length >= 0 {
		r = io.LimitReader(f, length)
	}
	_, err := b.copy(w, r)
	return err
}

// Attr is what a written file is to have; nil means as the file that it replaces, or the default.
type Attr struct {
	Mode     *uint32
	UID, GID *int
}

// Write replaces the file at path by what r gives, in one step. A symlink stays and its target is replaced.
func (b *Buffers) Write(path string, attr Attr, r io.Reader) (err error) {
	if path, err = target(path); err != nil {
		return err
	}
	mode, uid, gid, err := attributes(path, attr)
	if err != nil {
		return err
	}
	f, err := temp(filepath.Dir(path), filepath.Base(path))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := b.copy(f, r); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// target follows path while it is a symlink, also to what does not exist yet.
func target(path string) (string, error) {
	for range 40 {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil //nolint:nilerr // it is no symlink
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = filepath.Clean(to)
	}
	return "", &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
}

func attributes(path string, attr Attr) (mode fs.FileMode, uid, gid int, err error) {
	mode = 0o644
	st, err := os.Stat(path)
	switch {
	case err == nil && !st.Mode().IsRegular():
		return 0, 0, 0, fmt.Errorf("%w: %s is a %s, not a regular file", ErrPath, path, typeOf(st.Mode()))
	case err == nil:
		mode = st.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(sys.Uid), int(sys.Gid)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return 0, 0, 0, err
	}
	if attr.Mode != nil {
		mode = fileMode(*attr.Mode)
	}
	if attr.UID != nil {
		uid = *attr.UID
	}
	if attr.GID != nil {
		gid = *attr.GID
	}
	return mode, uid, gid, nil
}

// temp makes a file in dir that no listing by pattern takes for base.
func temp(dir, base string) (*os.File, error) {
	if len(base) > 200 {
		base = base[:200]
	}
	return os.CreateTemp(dir, "."+base+"."+strconv.Itoa(os.Getpid())+"-")
}
