package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/smolvm/smolvm/internal/guest/proto"
)

// ErrPath is a path or name that no file can have.
var ErrPath = errors.New("bad path")

// Clean returns the path made canonical; it must be absolute.
func Clean(path string) (string, error) {
	switch {
	case path == "":
		return "", fmt.Errorf("%w: it is empty", ErrPath)
	case len(path) > proto.MaxPath:
		return "", fmt.Errorf("%w: it has %d bytes, more than %d", ErrPath, len(path), proto.MaxPath)
	case strings.Contains(path, "\x00"):
		return "", fmt.Errorf("%w: it contains a NUL byte", ErrPath)
	case !filepath.IsAbs(path):
		return "", fmt.Errorf("%w: %q is not absolute", ErrPath, path)
	}
	return filepath.Clean(path), nil
}

// Info describes the file at path.
func Info(path string, noFollow bool) (*proto.FileInfo, error) {
	stat := os.Stat
	if noFollow {
		stat = os.Lstat
	}
	st, err := stat(path)
	if err != nil {
		return nil, err
	}
	return info(path, st), nil
}

func info(path string, st fs.FileInfo) *proto.FileInfo {
	f := &proto.FileInfo{
		Name: filepath.Base(path), Type: typeOf(st.Mode()), Size: st.Size(), Mode: unixMode(st.Mode()),
		MtimeNs: st.ModTime().UnixNano(),
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		f.Uid, f.Gid = sys.Uid, sys.Gid
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		f.Target, _ = os.Readlink(path)
	}
	return f
}

func typeOf(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "file"
	case m.IsDir():
		return "dir"
	case m&fs.ModeSymlink != 0:
		return "symlink"
	case m&fs.ModeNamedPipe != 0:
		return "fifo"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeCharDevice != 0:
		return "char"
	}
	return "block"
}

// unixMode gives the permission bits as stat(2) has them.
func unixMode(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	for _, b := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSetuid, syscall.S_ISUID}, {fs.ModeSetgid, syscall.S_ISGID}, {fs.ModeSticky, syscall.S_ISVTX}} {
		if m&b.mode != 0 {
			bits |= b.bit
		}
	}
	return bits
}

// fileMode is the reverse of unixMode.
func fileMode(bits uint32) fs.FileMode {
	m := fs.FileMode(bits & 0o777)
	if bits&syscall.S_ISUID != 0 {
		m |= fs.ModeSetuid
	}
	if bits&syscall.S_ISGID != 0 {
		m |= fs.ModeSetgid
	}
	if bits&syscall.S_ISVTX != 0 {
		m |= fs.ModeSticky
	}
	return m
}

// List returns up to limit entries of the directory after the name after, sorted. However many entries there are, it holds
// no more than twice the limit.
func List(path, after string, limit int) (page []*proto.FileInfo, more bool, err error) {
	if limit <= 0 || limit > proto.MaxList {
		limit = proto.MaxList
	}
	d, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = d.Close() }()
	var names []string
	for {
		batch, err := d.Readdirnames(proto.MaxList)
		for _, n := range batch {
			if n > after {
				names = append(names, n)
			}
		}
		if len(names) > limit {
			slices.Sort(names)
			names, more = names[:limit], true
		}
		if len(batch) == 0 || err != nil {
			break
		}
	}
	slices.Sort(names)
	return describe(path, names, more)
}

// describe looks the names up. A page stays below what fits in a message: the rest is for the next one.
func describe(dir string, names []string, more bool) ([]*proto.FileInfo, bool, error) {
	const most = proto.MaxMessage / 2
	size := 0
	page := make([]*proto.FileInfo, 0, len(names))
	for _, n := range names {
		f, err := Info(filepath.Join(dir, n), true)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, false, err
		}
		if size += len(f.GetName()) + len(f.GetTarget()) + 64; size > most {
			return page, true, nil
		}
		page = append(page, f)
	}
	return page, more, nil
}

// Mkdir makes a directory, with parents those that are missing too; then one that is there is no error.
func Mkdir(path string, mode uint32, parents bool) error {
	if mode == 0 {
		mode = 0o755
	}
	if !parents {
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		return os.Chmod(path, fileMode(mode))
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return nil
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, fileMode(mode))
}

// Remove removes a file or an empty directory, or everything below.
func Remove(path string, recursive bool) error {
	if path == "/" {
		return fmt.Errorf("%w: the root cannot be removed", ErrPath)
	}
	if !recursive {
		return os.Remove(path)
	}
	if _, err := os.Lstat(path); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// Chmod sets the permission bits.
func Chmod(path string, mode uint32) error { return os.Chmod(path, fileMode(mode)) }
