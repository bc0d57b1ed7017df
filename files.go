package smolvm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/smolvm/smolvm/errdefs"
)

func (vm *VM) file(path string, mode fs.FileMode) string {
	q := url.Values{"path": {path}}
	if mode != 0 {
		q.Set("mode", "0"+strconv.FormatUint(uint64(mode.Perm()), 8))
	}
	return vm.at("/files/content?" + q.Encode())
}

// WriteFile replaces a file in the VM, atomically. mode 0 is 0644, or that of the file that was there.
func (vm *VM) WriteFile(ctx context.Context, path string, data []byte, mode fs.FileMode) error {
	return vm.write(ctx, path, bytes.NewReader(data), mode)
}

func (vm *VM) write(ctx context.Context, path string, r io.Reader, mode fs.FileMode) error {
	if err := vm.ready(ctx); err != nil {
		return err
	}
	return vm.c.ask(ctx, http.MethodPut, vm.file(path, mode), r, nil)
}

// ReadFile returns a file of the VM.
func (vm *VM) ReadFile(ctx context.Context, path string) ([]byte, error) {
	var b bytes.Buffer
	err := vm.read(ctx, path, &b)
	return b.Bytes(), err
}

func (vm *VM) read(ctx context.Context, path string, w io.Writer) error {
	if err := vm.ready(ctx); err != nil {
		return err
	}
	req, err := vm.c.request(ctx, http.MethodGet, vm.file(path, 0), nil)
	if err != nil {
		return err
	}
	res, err := vm.c.do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(w, res.Body); err != nil {
		return failure(ctx, err)
	}
	return nil
}

// Upload copies a file of this host, with its permissions, into the VM.
func (vm *VM) Upload(ctx context.Context, from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return hostFile(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return hostFile(err)
	}
	if !info.Mode().IsRegular() {
		return errdefs.Invalid.Errorf("upload %s: it is no regular file", from).WithRemedy("smolvm cp %s %s:%s", from, vm.id, to)
	}
	return vm.write(ctx, to, f, info.Mode())
}

// Download copies a file of the VM to this host. The file is there when it is whole, and not before.
func (vm *VM) Download(ctx context.Context, from, to string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(to), ".smolvm-")
	if err != nil {
		return hostFile(err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if err := vm.read(ctx, from, f); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return hostFile(err)
	}
	if err := os.Rename(f.Name(), to); err != nil {
		return hostFile(err)
	}
	return nil
}

// hostFile gives what this host says of a file its class.
func hostFile(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errdefs.NotFound.Errorf("%w", err)
	case errors.Is(err, fs.ErrPermission):
		return errdefs.Denied.Errorf("%w", err)
	}
	return errdefs.Host.Errorf("%w", err)
}
