package bootfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/plainfile"
)

// What is looked at of a file: as much as tells what it is, and another one from it.
const headBytes = 4096

// file is one that was looked at.
type file struct {
	path string // without links
	size int64
	mode os.FileMode
	mark string // changes when the file does, as far as its beginning shows: a mounted ext4 writes there
	info os.FileInfo
}

// checker judges a file by its beginning.
type checker func(head []byte, size int64, r io.ReaderAt) error

// look opens a file that the user calls what, and has check judge its beginning.
func look(what, path string, check checker) (file, error) {
	if !filepath.IsAbs(path) { // our working directory is nobody's
		return file{}, errdefs.Invalid.Errorf("%s: %.200q is no absolute path", what, path)
	}
	at, err := plainfile.Resolve(path)
	if err != nil {
		return file{}, errdefs.NotFound.Errorf("%s: %w", what, err)
	}
	f, err := plainfile.Open(at, os.O_RDONLY)
	if errors.Is(err, plainfile.ErrNotRegular) {
		return file{}, errdefs.Invalid.Errorf("%s: %w", what, err)
	}
	if errors.Is(err, os.ErrPermission) {
		return file{}, errdefs.Denied.Errorf("%s: %w", what, err).WithRemedy("ls -l %s", at)
	}
	if err != nil {
		return file{}, errdefs.NotFound.Errorf("%s: %w", what, err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return file{}, errdefs.Host.Errorf("%s: %w", what, err)
	}
	head := make([]byte, headBytes)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return file{}, errdefs.Host.Errorf("%s: %w", what, err)
	}
	if err := check(head[:n], st.Size(), f); err != nil {
		return file{}, errdefs.Image.Errorf("%s: %s: %w", what, at, err)
	}
	sum := sha256.Sum256(head[:n])
	return file{
		path: at, size: st.Size(), mode: st.Mode(), info: st, mark: fmt.Sprintf("%d-%s", st.Size(), hex.EncodeToString(sum[:12])),
	}, nil
}

// An ext4's superblock.
const (
	superOffset   = 1024
	superSize     = 1024
	ext4Magic     = 0xef53
	incompatDirty = 0x4  // its journal has to be replayed
	incompat64    = 0x80 // more blocks than fit into 32 bits
)

// checkExt4 refuses what is no ext4, what is only a part of one, and one that somebody writes to.
func checkExt4(head []byte, size int64, _ io.ReaderAt) error {
	le := binary.LittleEndian
	if len(head) < superOffset+superSize || le.Uint16(head[superOffset+0x38:]) != ext4Magic {
		err := errdefs.Image.Errorf("it holds no ext4 file system")
		switch {
		case bytes.HasPrefix(head, []byte("QFI\xfb")):
			return err.WithRemedy("it is a qcow2 image: qemu-img convert -O raw, of a disk without partitions")
		case len(head) >= 512 && head[510] == 0x55 && head[511] == 0xaa:
			return err.WithRemedy("it is a disk with partitions: take the one with the root file system out of it")
		}
		return err.WithRemedy("make one: mke2fs -t ext4 -d DIRECTORY rootfs.ext4 2g")
	}
	super := head[superOffset : superOffset+superSize]
	exponent, features := le.Uint32(super[0x18:]), le.Uint32(super[0x60:])
	blocks := uint64(le.Uint32(super[0x4:]))
	if features&incompat64 != 0 {
		blocks |= uint64(le.Uint32(super[0x150:])) << 32
	}
	if exponent > 6 || blocks == 0 || blocks > 1<<40 {
		return errdefs.Image.Errorf("its ext4 file system is damaged").WithRemedy("e2fsck -f FILE")
	}
	if want := blocks << (10 + exponent); want > uint64(max(size, 0)) {
		return errdefs.Image.Errorf("its ext4 file system has %d bytes, and the file only %d: it was cut off", want, size).WithRemedy("copy it again")
	}
	if features&incompatDirty != 0 {
		return errdefs.Image.Errorf("its ext4 file system is mounted for writing, or was not unmounted").WithRemedy("unmount it, or else: e2fsck -f FILE")
	}
	return nil
}

// Of an ELF file's header.
const (
	elfHeader   = 64
	elfPhdr     = 56
	elfExec     = 2
	elfShared   = 3
	elfX86      = 62
	elfLoad     = 1
	maxElfPhdrs = 64
)

// checkKernel refuses what is no vmlinux for our machines, or only a part of one.
func checkKernel(head []byte, size int64, r io.ReaderAt) error {
	le := binary.LittleEndian
	if len(head) < elfHeader || !bytes.HasPrefix(head, []byte("\x7fELF")) {
		err := errdefs.Image.Errorf("it is no vmlinux, which is an ELF file")
		if len(head) > 0x206 && bytes.HasPrefix(head[0x202:], []byte("HdrS")) {
			return err.WithRemedy("it is a compressed kernel: scripts/extract-vmlinux of the kernel's source takes the vmlinux out of it")
		}
		return err
	}
	kind := le.Uint16(head[16:])
	if head[4] != 2 || head[5] != 1 || kind != elfExec && kind != elfShared || le.Uint16(head[18:]) != elfX86 {
		return errdefs.Image.Errorf("it is no kernel for 64-bit x86 machines")
	}
	at, entry, n := le.Uint64(head[32:]), le.Uint16(head[54:]), int(le.Uint16(head[56:]))
	if entry != elfPhdr || n == 0 || n > maxElfPhdrs || at > uint64(max(size, 0)) {
		return errdefs.Image.Errorf("its ELF header is damaged")
	}
	table := make([]byte, n*elfPhdr)
	if _, err := r.ReadAt(table, int64(at)); err != nil { //nolint:gosec // at most size
		return errdefs.Image.Errorf("its ELF header is damaged, or it was cut off: %w", err)
	}
	loads := 0
	for p := range n {
		h := table[p*elfPhdr:]
		if le.Uint32(h) != elfLoad {
			continue
		}
		loads++
		from, length := le.Uint64(h[8:]), le.Uint64(h[32:])
		if length > uint64(size) || from > uint64(size)-length { //nolint:gosec // a file's size
			return errdefs.Image.Errorf("it has %d bytes, and its ELF header speaks of more: it was cut off", size).WithRemedy("copy it again")
		}
	}
	if loads == 0 {
		return errdefs.Image.Errorf("nothing in it is to be loaded: it is no kernel")
	}
	return nil
}
