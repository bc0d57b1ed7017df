package image

import (
	"bytes"
	"compress/gzip"
	_ "embed" // the templates
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// The templates are empty ext4 file systems, packed: script/template makes them and says how.
var (
	//go:embed disk-256.ext4.gz
	smallTemplate []byte
	//go:embed disk-8192.ext4.gz
	defaultTemplate []byte
)

// Sizes of disks.
const (
	smallMiB   = 256
	defaultMiB = api.DefaultDiskMiB
	// MinDiskMiB and MaxDiskMiB bound a VM's disk: the smallest template's size, and what it can be grown to.
	MinDiskMiB = smallMiB
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
// has the size of a template, the default's if that fits; what is missing, the guest adds.
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
	packed := smallTemplate
	if sizeMiB >= defaultMiB {
		packed = defaultTemplate
	}
	if err := unpack(f, packed, int64(sizeMiB)<<20); err != nil {
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

// unpack writes a template's records to f and leaves the rest to be holes.
func unpack(f *os.File, packed []byte, size int64) error {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return fmt.Errorf("the template: %w", err)
	}
	for {
		var head struct{ Offset, Length int64 }
		switch err := binary.Read(z, binary.LittleEndian, &head); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("the template: %w", err)
		case head.Offset < 0 || head.Length < 0 || head.Offset > size-head.Length:
			return fmt.Errorf("the template has %d bytes at %d", head.Length, head.Offset)
		}
		if _, err := io.CopyN(io.NewOffsetWriter(f, head.Offset), z, head.Length); err != nil {
			return fmt.Errorf("write the template: %w", err)
		}
	}
}
