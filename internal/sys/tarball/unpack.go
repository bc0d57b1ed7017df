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
	"slices"
	"strings"
	"time"
)

// Unpacking says how an archive is unpacked.
type Unpacking struct {
	// From is the first element that every name must have; it becomes To. "" leaves names as they are.
	From, To string
	// MaxBytes bounds the files' content in all, holes included.
	MaxBytes int64
}

// unpacker is one run.
type unpacker struct {
	Unpacking
	root    *os.Root
	left    int64
	parent  string // of the last entry, known to be made of real directories
	dirs    []dir  // set at the end, so that what is in a read-only one can be made
	refused RefusedError
}

type dir struct {
	name string
	mode fs.FileMode
	time time.Time
}

// Unpack unpacks r below root and nowhere else, whatever r says. Files get our owner, and no set-uid bits. Names that
// lead outside, links that would, and devices are left out; they are told by a RefusedError at the end.
func Unpack(ctx context.Context, root *os.Root, r io.Reader, how Unpacking) error {
	u := &unpacker{Unpacking: how, root: root, left: how.MaxBytes}
	tr := tar.NewReader(r)
	err := u.entries(ctx, tr)
	for _, d := range slices.Backward(u.dirs) {
		if derr := u.finish(d); derr != nil && err == nil {
			err = derr
		}
	}
	if err == nil && u.refused.Count > 0 {
		return &u.refused
	}
	return err
}

func (u *unpacker) entries(ctx context.Context, tr *tar.Reader) error {
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if n >= maxEntries {
			return fmt.Errorf("the archive has more than %d entries: %w", maxEntries, ErrTooLarge)
		}
		name, err := u.rename(h.Name)
		if err != nil {
			u.refuse(h.Name, err)
			continue
		}
		if err := u.entry(h, name, tr); err != nil {
			if r, ok := errors.AsType[refusal](err); ok {
				u.refuse(h.Name, r)
				continue
			}
			return fmt.Errorf("unpack %q: %w", h.Name, err)
		}
	}
}

// refusal is an error that leaves one entry out.
type refusal struct{ error }

func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

func (u *unpacker) refuse(name string, why error) {
	if u.refused.Count++; u.refused.Count == 1 {
		u.refused.First = fmt.Sprintf("%q: %v", name, why)
	}
}

// rename makes of an archive's name ours.
func (u *unpacker) rename(name string) (string, error) {
	name, err := localName(name)
	if err != nil || u.From == "" {
		return name, err
	}
	first, rest, _ := strings.Cut(name, "/")
	if first != u.From {
		return "", fmt.Errorf("it is not in %q", u.From)
	}
	return path.Join(u.To, rest), nil
}

func (u *unpacker) entry(h *tar.Header, name string, content io.Reader) error {
	if name == "." {
		if h.Typeflag == tar.TypeDir {
			return nil
		}
		return refuse("it would take the place of the directory itself")
	}
	switch h.Typeflag {
	case tar.TypeDir, tar.TypeReg, tar.TypeSymlink, tar.TypeLink:
	case tar.TypeChar, tar.TypeBlock:
		return refuse("it is a device")
	case tar.TypeFifo:
		return refuse("it is a named pipe")
	default:
		return refuse("it is of an unknown kind")
	}
	if err := u.parents(path.Dir(name)); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.mkdir(h, name)
	case tar.TypeReg:
		return u.file(h, name, content)
	case tar.TypeSymlink:
		return u.symlink(h, name)
	}
	return u.link(h, name)
}

// parents makes the directories above an entry. A symlink among them is refused even where it leads inside, because what
// is made behind it would not be where its name says.
func (u *unpacker) parents(name string) error {
	if name == "." || name == u.parent {
		return nil // what we made we never replace by a link
	}
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		st, err := u.root.Lstat(name[:i])
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := u.root.Mkdir(name[:i], 0o755); err != nil {
				return err
			}
		case err != nil:
			return err
		case !st.IsDir():
			return refuse("%q is no directory", name[:i])
		}
	}
	u.parent = name
	return nil
}

func (u *unpacker) mkdir(h *tar.Header, name string) error {
	st, err := u.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := u.root.Mkdir(name, 0o700); err != nil {
			return err
		}
	case err != nil:
		return err
	case !st.IsDir():
		return refuse("something that is no directory is in its place")
	}
	if len(u.dirs) >= maxDirs {
		return fmt.Errorf("the archive has more than %d directories: %w", maxDirs, ErrTooLarge)
	}
	u.dirs = append(u.dirs, dir{name, fs.FileMode(h.Mode) & fs.ModePerm, h.ModTime}) //nolint:gosec // the bits are masked
	return nil
}

// finish gives a directory its mode and time. One that was replaced meanwhile is left alone.
func (u *unpacker) finish(d dir) error {
	if st, err := u.root.Lstat(d.name); err != nil || !st.IsDir() {
		return nil //nolint:nilerr // there is nothing to finish
	}
	return errors.Join(u.root.Chmod(d.name, d.mode), u.root.Chtimes(d.name, d.time, d.time))
}

// clear makes room for what is no directory.
func (u *unpacker) clear(name string) error {
	st, err := u.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.IsDir():
		return refuse("a directory is in its place")
	}
	return u.root.Remove(name)
}

func (u *unpacker) file(h *tar.Header, name string, content io.Reader) error {
	if h.Size > u.left {
		return fmt.Errorf("%d bytes: %w", h.Size, ErrTooLarge)
	}
	u.left -= h.Size
	if err := u.clear(name); err != nil {
		return err
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Chmod(fs.FileMode(h.Mode) & fs.ModePerm) //nolint:gosec // the bits are masked
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return u.root.Chtimes(name, h.ModTime, h.ModTime)
}

func (u *unpacker) symlink(h *tar.Header, name string) error {
	if err := localTarget(name, h.Linkname); err != nil {
		return refusal{err}
	}
	if err := u.clear(name); err != nil {
		return err
	}
	return u.root.Symlink(h.Linkname, name)
}

// link makes another name of a regular file: another one for a symlink could lead outside from its new place.
func (u *unpacker) link(h *tar.Header, name string) error {
	old, err := u.rename(h.Linkname)
	if err != nil {
		return refuse("its target %q: %w", h.Linkname, err)
	}
	if st, err := u.root.Lstat(old); err != nil || !st.Mode().IsRegular() {
		return refuse("its target %q is no file of this archive", h.Linkname)
	}
	if err := u.parents(path.Dir(old)); err != nil {
		return err
	}
	if old == name {
		return nil
	}
	if err := u.clear(name); err != nil {
		return err
	}
	return u.root.Link(old, name)
}
