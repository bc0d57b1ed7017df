package kernel

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image/apt"
)

const maxUnpacked = 2 << 30

var releaseName = regexp.MustCompile(`^[0-9][A-Za-z0-9.+_-]{0,120}$`)

// unpack takes the kernel and its modules out of the package: work/vmlinuz and work/lib/modules/RELEASE. It returns the
// release.
func (f *fetch) unpack(ctx context.Context, deb string) (string, error) {
	tool, err := apt.Tool("dpkg-deb", "dpkg")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // an early return ends the tool
	errs := &apt.Tail{Max: 4 << 10}
	cmd := exec.CommandContext(ctx, tool, "--fsys-tarfile", deb)
	cmd.Env, cmd.Stderr = apt.Environ(), errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", fmt.Errorf("dpkg-deb: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return "", errdefs.Host.Errorf("dpkg-deb: %w", err)
	}
	release, err := unpackTar(out, f.work)
	if err != nil {
		cancel()
		_ = cmd.Wait() // the first error says more
		return "", errdefs.Image.Errorf("unpack Debian's kernel: %w", err)
	}
	_, _ = io.Copy(io.Discard, out) // what tar pads with
	if err := cmd.Wait(); err != nil {
		return "", errdefs.Image.Errorf("dpkg-deb: %w: %s", err, errs)
	}
	return release, nil
}

// unpackTar writes the parts that we need below dir, which holds nothing by these names.
func unpackTar(r io.Reader, dir string) (release string, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	seen := false
	t := tar.NewReader(io.LimitReader(r, maxUnpacked))
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		switch {
		case h.Typeflag != tar.TypeReg:
		case strings.HasPrefix(name, "boot/vmlinuz-"):
			seen = true
			err = writeFile(root, "vmlinuz", t, h.ModTime)
		case strings.HasPrefix(name, "usr/lib/modules/"), strings.HasPrefix(name, "lib/modules/"):
			name = strings.TrimPrefix(name, "usr/")
			release = strings.Split(name, "/")[2]
			err = writeFile(root, name, t, h.ModTime)
		}
		if err != nil {
			return "", err
		}
	}
	if !seen || !releaseName.MatchString(release) {
		return "", fmt.Errorf("no kernel or no modules in it (release %q)", release)
	}
	return release, nil
}

func writeFile(root *os.Root, name string, r io.Reader, mtime time.Time) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	w, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return root.Chtimes(name, mtime, mtime)
}

// writeTree writes dir as a tar, owned by root. All times are the newest of the package's own files, so that the same
// package gives the same bytes.
func writeTree(w io.Writer, dir string) error {
	t := tar.NewWriter(w)
	st, err := os.Stat(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return err
	}
	tree := os.DirFS(dir)
	err = fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		h := &tar.Header{Name: name, Mode: 0o644, ModTime: st.ModTime(), Typeflag: tar.TypeReg}
		if d.IsDir() {
			h.Name, h.Mode, h.Typeflag = name+"/", 0o755, tar.TypeDir
			return t.WriteHeader(h)
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file", name)
		}
		b, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		h.Size = int64(len(b))
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err = t.Write(b)
		return err
	})
	if err != nil {
		return err
	}
	return t.Close()
}
