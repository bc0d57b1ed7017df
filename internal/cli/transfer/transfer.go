// Package transfer copies files and directories into a VM and out of it. What comes out is not trusted.
//
// Layer: part of the front cli. It may import api, errdefs, internal/sys.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/tarball"
)

// Home is where a path in a guest begins that is not absolute, as a command's would by default.
const Home = "/root"

// Files reads and writes a VM's files.
type Files interface {
	Stat(ctx context.Context, path string, noFollow bool) (api.FileInfo, error)
	ReadFile(ctx context.Context, path string, offset, length int64) (io.ReadCloser, error)
	WriteFile(ctx context.Context, path string, mode os.FileMode, r io.Reader) error
	TarOut(ctx context.Context, path string) (io.ReadCloser, error)
	TarIn(ctx context.Context, path string, r io.Reader) error
}

// Copy is one copy.
type Copy struct {
	ID       string
	Guest    string // path in the VM, from Path
	Host     string // path here; "-" is a tar on Stdin or Stdout
	Files    Files
	Max      int64 // bytes that may come out
	Stdin    io.Reader
	Stdout   io.Writer
	Warn     func(format string, args ...any)
	Progress api.ProgressFunc
}

// Split takes ID:PATH apart. What has a slash before its first colon is a path here, as with scp.
func Split(s string) (id, name string, guest bool) {
	id, name, guest = strings.Cut(s, ":")
	if !guest || api.ValidateID(id) != nil {
		return "", s, false
	}
	return id, name, true
}

// Path makes a path in a VM absolute.
func Path(name string) string {
	if path.IsAbs(name) {
		return name
	}
	return path.Join(Home, name) + keepDot(name)
}

// keepDot keeps the end that asks for a directory's content.
func keepDot(name string) string {
	if name == "." || strings.HasSuffix(name, "/.") {
		return "/."
	}
	return ""
}

// In copies into the VM.
func (c *Copy) In(ctx context.Context) error {
	if c.Host == "-" {
		return c.Files.TarIn(ctx, path.Clean(c.Guest), c.count(c.Stdin, "into "+c.ID, 0))
	}
	st, err := os.Stat(c.Host)
	if err != nil {
		return errdefs.Invalid.Errorf("cp: %w", err)
	}
	dst, isDir, err := c.target(ctx)
	if err != nil {
		return err
	}
	abs, err := filepath.Abs(c.Host)
	if err != nil {
		return errdefs.Host.Errorf("cp: %w", err)
	}
	base := filepath.Base(abs)
	if st.IsDir() {
		switch {
		case isDir && keepDot(c.Host) != "":
			return c.treeIn(ctx, dst, ".")
		case isDir && base != "/":
			return c.treeIn(ctx, dst, base)
		}
		return c.treeIn(ctx, path.Dir(dst), path.Base(dst))
	}
	if isDir {
		dst = path.Join(dst, base)
	} else if strings.HasSuffix(c.Guest, "/") {
		return errdefs.NotFound.Errorf("cp: %s: there is no directory %s", c.ID, dst).WithRemedy("smolvm exec %s -- mkdir -p %s", c.ID, dst)
	}
	if !st.Mode().IsRegular() {
		return errdefs.Invalid.Errorf("cp: %s is neither a file nor a directory", c.Host)
	}
	f, err := os.Open(c.Host)
	if err != nil {
		return errdefs.Invalid.Errorf("cp: %w", err)
	}
	defer func() { _ = f.Close() }()
	return c.Files.WriteFile(ctx, dst, st.Mode().Perm(), c.count(f, "into "+c.ID, st.Size()))
}

// target looks at where the VM shall have it.
func (c *Copy) target(ctx context.Context) (dst string, isDir bool, err error) {
	dst = path.Clean(c.Guest)
	info, err := c.Files.Stat(ctx, dst, false)
	if errdefs.Is(err, errdefs.NotFound) {
		return dst, false, nil
	}
	return dst, err == nil && info.Type == "dir", err
}

// treeIn copies a directory to dir/name.
func (c *Copy) treeIn(ctx context.Context, dir, name string) error {
	root, err := os.OpenRoot(c.Host)
	if err != nil {
		return errdefs.Invalid.Errorf("cp: %w", err)
	}
	defer func() { _ = root.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	skipped := make(chan int, 1)
	go func() {
		n, err := tarball.Pack(ctx, w, root, name)
		_ = w.CloseWithError(err)
		skipped <- n
	}()
	err = c.Files.TarIn(ctx, dir, c.count(r, "into "+c.ID, 0))
	_ = r.CloseWithError(errors.New("the VM takes no more"))
	if n := <-skipped; n > 0 && err == nil {
		c.Warn("cp: %d sockets, pipes or devices of %s were left out", n, c.Host)
	}
	return err
}

// Out copies out of the VM.
func (c *Copy) Out(ctx context.Context) error {
	src := path.Clean(c.Guest)
	if c.Host == "-" {
		r, err := c.Files.TarOut(ctx, src)
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		_, err = io.Copy(c.Stdout, c.count(r, "out of "+c.ID, 0))
		return err
	}
	info, err := c.Files.Stat(ctx, src, false)
	if err != nil {
		return err
	}
	st, serr := os.Stat(c.Host)
	if serr != nil && !errors.Is(serr, fs.ErrNotExist) {
		return errdefs.Invalid.Errorf("cp: %w", serr)
	}
	isDir := serr == nil && st.IsDir()
	switch info.Type {
	case "dir":
		return c.treeOut(ctx, src, isDir)
	case "file":
	default:
		return errdefs.Invalid.Errorf("cp: %s in %s is neither a file nor a directory", src, c.ID)
	}
	dst := c.Host
	if isDir {
		dst = filepath.Join(dst, path.Base(src))
	}
	return c.fileOut(ctx, src, dst, info)
}

func (c *Copy) fileOut(ctx context.Context, src, dst string, info api.FileInfo) error {
	r, err := c.Files.ReadFile(ctx, src, 0, -1)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	mode := fs.FileMode(info.Mode) & fs.ModePerm
	if st, err := os.Stat(dst); err == nil && !st.Mode().IsRegular() {
		return errdefs.Invalid.Errorf("cp: %s is there and no file", dst)
	}
	f, err := renameio.NewPendingFile(dst, renameio.WithPermissions(mode), renameio.WithStaticPermissions(mode))
	if err != nil {
		return errdefs.Invalid.Errorf("cp: %w", err)
	}
	defer func() { _ = f.Cleanup() }()
	n, err := io.Copy(f, io.LimitReader(c.count(r, "out of "+c.ID, info.Size), c.Max+1))
	if err != nil {
		return err
	}
	if n > c.Max {
		return c.tooMuch()
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return errdefs.Host.Errorf("cp: %w", err)
	}
	return nil
}

// treeOut copies a directory into the one that is there, or to the name that is not.
func (c *Copy) treeOut(ctx context.Context, src string, isDir bool) error {
	dir, to := c.Host, path.Base(src)
	if keepDot(c.Guest) != "" || src == "/" {
		to = "."
	}
	if !isDir {
		dir, to = filepath.Dir(filepath.Clean(c.Host)), filepath.Base(filepath.Clean(c.Host))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return errdefs.Invalid.Errorf("cp: %w", err)
	}
	defer func() { _ = root.Close() }()
	if to != "." && !isDir {
		if err := root.Mkdir(to, 0o755); err != nil {
			return errdefs.Invalid.Errorf("cp: %w", err)
		}
	}
	r, err := c.Files.TarOut(ctx, src)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	how := tarball.Unpacking{From: path.Base(src), To: to, MaxBytes: c.Max}
	if src == "/" { // its names have no first element of their own
		how.From = ""
		sub, err := root.OpenRoot(to)
		if err != nil {
			return errdefs.Host.Errorf("cp: %w", err)
		}
		defer func() { _ = sub.Close() }()
		root = sub
	}
	err = tarball.Unpack(ctx, root, c.count(r, "out of "+c.ID, 0), how)
	if refused, ok := errors.AsType[*tarball.RefusedError](err); ok {
		return errdefs.Denied.Errorf("cp: not everything in %s came out of %s: %w", src, c.ID, refused)
	}
	if errors.Is(err, tarball.ErrTooLarge) {
		return c.tooMuch()
	}
	if err != nil {
		return fmt.Errorf("cp: %w", err)
	}
	return nil
}

func (c *Copy) tooMuch() error {
	return errdefs.Exhausted.Errorf("cp: more came out of %s than its disk can hold", c.ID)
}

// counter counts what goes through.
type counter struct {
	r     io.Reader
	done  int64
	step  api.Progress
	shown int64
	tell  api.ProgressFunc
}

func (c *Copy) count(r io.Reader, what string, total int64) io.Reader {
	return &counter{r: r, step: api.Progress{Stage: "copy", Detail: what, Total: total}, tell: c.Progress}
}

// Read implements io.Reader.
func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.done += int64(n)
	if c.done-c.shown > 1<<20 || c.shown == 0 {
		c.shown, c.step.Done = c.done, c.done
		c.tell(c.step)
	}
	return n, err
}
