package files

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxLinks bounds what is remembered to find hard links again; further ones become files of their own.
const maxLinks = 100_000

type inode struct{ dev, ino uint64 }

// tarWriter writes one tree.
type tarWriter struct {
	tw    *tar.Writer
	bufs  *Buffers
	links map[inode]string
}

// TarOut writes the file or tree at path to w, named relative to its parent. A symlink given as path is followed.
func (b *Buffers) TarOut(w io.Writer, path string) error {
	top, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	t := &tarWriter{tw: tar.NewWriter(w), bufs: b, links: map[inode]string{}}
	err = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && p != top {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		name := filepath.Join(filepath.Base(path), rel)
		if path == "/" {
			name = rel
		}
		return t.add(p, name, d)
	})
	if err != nil {
		return err
	}
	return t.tw.Close()
}

func (t *tarWriter) add(path, name string, d fs.DirEntry) error {
	st, err := d.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode()&fs.ModeSocket != 0 {
		return nil // a tar has no word for it
	}
	var link string
	if st.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(st, link)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname = name, "", ""
	h.Format = tar.FormatPAX
	if st.IsDir() {
		h.Name += "/"
	}
	if first := t.hardLink(st, name); first != "" {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		return t.tw.WriteHeader(h)
	}
	if st.Mode().IsRegular() || st.IsDir() {
		h.PAXRecords = xattrs(path)
	}
	if !st.Mode().IsRegular() {
		return t.tw.WriteHeader(h)
	}
	return t.file(path, h)
}

// hardLink returns the name under which the file is in the archive already.
func (t *tarWriter) hardLink(st fs.FileInfo, name string) string {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.Mode().IsRegular() || sys.Nlink < 2 {
		return ""
	}
	id := inode{sys.Dev, sys.Ino}
	if first, ok := t.links[id]; ok {
		return first
	}
	if len(t.links) < maxLinks {
		t.links[id] = name
	}
	return ""
}

// file writes as many bytes as the header says: a file that grows is cut there, one that shrank is an error.
func (t *tarWriter) file(path string, h *tar.Header) error {
	f, err := Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	n, err := t.bufs.copy(t.tw, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size {
		err = fmt.Errorf("%s became shorter while it was read", path)
	}
	return err
}

const xattrPrefix = "SCHILY.xattr."

// xattrs returns the file's extended attributes as a tar's records; bounded, and none where they cannot be read.
func xattrs(path string) map[string]string {
	buf := make([]byte, 8<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil || n == 0 {
		return nil
	}
	records := map[string]string{}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if n, err := unix.Lgetxattr(path, name, value); err == nil && !strings.Contains(name, "=") {
			records[xattrPrefix+name] = string(value[:n])
		}
	}
	return records
}
