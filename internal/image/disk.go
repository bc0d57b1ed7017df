package image

import (
	"bytes"
	"compress/gzip"
	_ "embed" // the template
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/smolvm/smolvm/errdefs"
)

// diskTemplate is an empty ext4 of templateMiB, gzipped. script/template makes it.
//
//go:embed disk.ext4.gz
var diskTemplate []byte

// Sizes of disks.
const (
	templateMiB = 256
	// MinDiskMiB and MaxDiskMiB bound a VM's disk: the template's size, and what it can be grown to.
	MinDiskMiB = templateMiB
	MaxDiskMiB = 256 << 10
)

// GrowDisk makes a disk larger; the guest that it is attached to next grows the file system on it.
func GrowDisk(path string, sizeMiB int) error {
	st, err := os.Stat(path)
	if err != nil {
		return diskError(path, err)
	}
	if size := int64(sizeMiB) << 20; size > st.Size() {
		return diskError(path, os.Truncate(path, size))
	}
	return nil
}

// NewDisk writes an empty ext4 disk, sparse and of the given size, to path, which must not exist. The file system in it
// is the small template's; the guest grows it.
func NewDisk(path string, sizeMiB int) (err error) {
	if sizeMiB < MinDiskMiB || sizeMiB > MaxDiskMiB {
		return errdefs.Invalid.Errorf("a disk of %d MiB: %d to %d are possible", sizeMiB, MinDiskMiB, MaxDiskMiB)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the caller's own path
	if errors.Is(err, fs.ErrExist) {
		return errdefs.AlreadyExists.Errorf("make a disk: %w", err)
	}
	if err != nil {
		return errdefs.Host.Errorf("make a disk: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	z, err := gzip.NewReader(bytes.NewReader(diskTemplate))
	if err != nil {
		return errdefs.Internal.Errorf("the disk template: %w", err)
	}
	if err := writeSparse(f, z); err != nil {
		return diskError(path, err)
	}
	if err := f.Truncate(int64(sizeMiB) << 20); err != nil {
		return diskError(path, err)
	}
	return diskError(path, f.Sync())
}

func diskError(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case noSpace(err):
		return errdefs.Exhausted.Errorf("make the disk %s: %w", path, err).WithRemedy("make room: df -h %s", filepath.Dir(filepath.Dir(path)))
	}
	return errdefs.Host.Errorf("make the disk %s: %w", path, err)
}

// writeSparse copies r to f from its start and leaves holes where r is zero.
func writeSparse(f *os.File, r io.Reader) error {
	const block = 4096
	buf, zero := make([]byte, 64*block), make([]byte, block)
	for off := int64(0); ; {
		n, err := io.ReadFull(r, buf)
		for at := 0; at < n; at += block {
			part := buf[at:min(at+block, n)]
			if bytes.Equal(part, zero[:len(part)]) {
				continue
			}
			if _, werr := f.WriteAt(part, off+int64(at)); werr != nil {
				return werr
			}
		}
		off += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			if off > templateMiB<<20 {
				return fmt.Errorf("the template has %d bytes", off)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}
