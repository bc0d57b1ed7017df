package files

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxDirTimes bounds how many directories get their own time back at the end.
const maxDirTimes = 100_000

// tarReader unpacks one archive. Everything goes through an os.Root, so that no name and no link in the archive leads out
// of the directory.
type tarReader struct {
	root *os.Root
	bufs *Buffers
	own  bool // set owners
	dirs []dirTime
}

type dirTime struct {
	name string
	at   time.Time
}

// TarIn unpacks r below the directory dir, which is made when absent.
func (b *Buffers) TarIn(dir string, r io.Reader) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	t := &tarReader{root: root, bufs: b, own: os.Geteuid() == 0}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("tar: %w", err)
		}
		if err := t.entry(h, tr); err != nil {
			return err
		}
	}
	for _, v := range slices.Backward(t.dirs) {
		_ = root.Chtimes(v.name, v.at, v.at)
	}
	// What follows the archive's end belongs to it: padding.
	_, err = b.copy(io.Discard, r)
	return err
}

// memberName makes a tar's name relative, and refuses what leads upwards.
func memberName(name string) (string, error) {
	if strings.Contains(name, "\x00") || len(name) > 4096 {
		return "", fmt.Errorf("%w: a name in the tar", ErrPath)
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("%w: the tar's %q leads out of the directory", ErrPath, name)
	}
	return clean, nil
}

func (t *tarReader) entry(h *tar.Header, r io.Reader) error {
	name, err := memberName(h.Name)
	if err != nil {
		return err
	}
	if name != "." {
		if err := t.root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
	}
	if h.Typeflag != tar.TypeDir {
		if name == "." {
			return fmt.Errorf("%w: the tar's %q is not a directory", ErrPath, h.Name)
		}
		if err := t.clear(name); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return t.dir(h, name)
	case tar.TypeReg, tar.TypeGNUSparse:
		return t.file(h, name, r)
	case tar.TypeSymlink:
		if err := t.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return t.owner(h, name)
	case tar.TypeLink:
		first, err := memberName(h.Linkname)
		if err != nil {
			return err
		}
		return t.root.Link(first, name)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return t.node(h, name)
	}
	return fmt.Errorf("%w: %q in the tar has the unknown type %q", ErrPath, h.Name, h.Typeflag)
}

// clear removes what is in the way of a new file. A directory stays in the way: only an empty one goes.
func (t *tarReader) clear(name string) error {
	err := t.root.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (t *tarReader) dir(h *tar.Header, name string) error {
	if err := t.root.MkdirAll(name, 0o755); err != nil {
		return err
	}
	if name == "." {
		return nil // it is the caller's, with its attributes
	}
	if len(t.dirs) < maxDirTimes {
		t.dirs = append(t.dirs, dirTime{name, h.ModTime})
	}
	st, err := t.root.Lstat(name)
	if err != nil {
		return err
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		return nil // a link to a directory that was there: it keeps its attributes
	}
	if err := t.owner(h, name); err != nil {
		return err
	}
	return t.root.Chmod(name, h.FileInfo().Mode())
}

func (t *tarReader) file(h *tar.Header, name string, r io.Reader) (err error) {
	f, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := t.bufs.copy(f, r); err != nil {
		return err
	}
	if t.own {
		if err := f.Chown(h.Uid, h.Gid); err != nil {
			return err
		}
	}
	for k, v := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(k, xattrPrefix); ok {
			// Best effort: not every file system takes every attribute.
			_ = unix.Fsetxattr(int(f.Fd()), attr, []byte(v), 0)
		}
	}
	if err := f.Chmod(h.FileInfo().Mode()); err != nil {
		return err
	}
	return t.root.Chtimes(name, h.ModTime, h.ModTime)
}

func (t *tarReader) owner(h *tar.Header, name string) error {
	if !t.own {
		return nil
	}
	return t.root.Lchown(name, h.Uid, h.Gid)
}

// node makes a device or pipe in its directory, which is opened through the root.
func (t *tarReader) node(h *tar.Header, name string) error {
	if !t.own && h.Typeflag != tar.TypeFifo {
		return fmt.Errorf("%s: only root makes devices: %w", name, fs.ErrPermission)
	}
	dir, err := t.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	mode := uint32(h.Mode) & 0o7777 //nolint:gosec // masked
	switch h.Typeflag {
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	default:
		mode |= unix.S_IFIFO
	}
	dev := int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))) //nolint:gosec // device numbers are small
	if err := unix.Mknodat(int(dir.Fd()), filepath.Base(name), mode, dev); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return t.owner(h, name)
}
