package tarball

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// Pack writes the tree below root to w, with "." named top. Everything belongs to root in there. Sockets, devices and
// pipes are left out; how many is returned.
func Pack(ctx context.Context, w io.Writer, root *os.Root, top string) (skipped int, err error) {
	tw := tar.NewWriter(w)
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if errors.Is(err, fs.ErrNotExist) && name != "." {
			return nil // gone meanwhile
		}
		if err != nil {
			return err
		}
		if !d.IsDir() && d.Type() != 0 && d.Type() != fs.ModeSymlink {
			skipped++
			return nil
		}
		return add(tw, root, name, path.Join(top, name))
	})
	if err == nil {
		err = tw.Close()
	}
	return skipped, err
}

func add(tw *tar.Writer, root *os.Root, name, as string) error {
	st, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if st.Mode().IsRegular() {
		return addFile(tw, root, name, as)
	}
	target := ""
	if st.Mode()&fs.ModeSymlink != 0 {
		if target, err = root.Readlink(name); err != nil {
			return err
		}
	}
	h, err := header(st, target, as)
	if err != nil {
		return err
	}
	return tw.WriteHeader(h)
}

func addFile(tw *tar.Writer, root *os.Root, name, as string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	h, err := header(st, "", as)
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.CopyN(tw, f, h.Size); err != nil {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s became shorter while it was copied", name)
		}
		return err
	}
	return nil
}

// header describes a file. The user's ids mean nothing elsewhere, and a header without names is portable.
func header(st fs.FileInfo, target, as string) (*tar.Header, error) {
	h, err := tar.FileInfoHeader(st, target)
	if err != nil {
		return nil, err
	}
	h.Name = as
	if st.IsDir() {
		h.Name += "/"
	}
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	h.Format = tar.FormatPAX
	return h, nil
}
