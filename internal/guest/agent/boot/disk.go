package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ext4's own requests; x/sys has no names for them.
const (
	ext4ResizeFS = 0x40086610 // _IOW('f', 16, __u64)
	ext4SetUUID  = 0x4008662c // _IOW('f', 44, struct fsuuid)
	ext4GetUUID  = 0x8008662c // _IOR('f', 44, struct fsuuid)
)

// fsUUID is the kernel's struct fsuuid with its 16 bytes.
type fsUUID struct {
	length uint32
	_      uint32 // flags
	uuid   [16]byte
}

// setUUID gives the mounted ext4 at dir its identity, unless it has it.
func setUUID(dir *os.File, uuid []byte) error {
	if len(uuid) == 0 {
		return nil
	}
	if len(uuid) != 16 {
		return fmt.Errorf("disk uuid has %d bytes", len(uuid))
	}
	now := fsUUID{length: 16}
	if err := ioctl(dir.Fd(), ext4GetUUID, &now); err == nil && bytes.Equal(now.uuid[:], uuid) {
		return nil
	}
	want := fsUUID{length: 16}
	copy(want.uuid[:], uuid)
	if err := ioctl(dir.Fd(), ext4SetUUID, &want); err != nil {
		return fmt.Errorf("set the file system's uuid: %w", err)
	}
	return nil
}

// grow makes the mounted ext4 at dir as large as its device. It never makes it smaller.
func grow(dir *os.File, device string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var size uint64
	if err := ioctl(f.Fd(), unix.BLKGETSIZE64, &size); err != nil {
		return fmt.Errorf("size of %s: %w", device, err)
	}
	var super [superSize]byte
	if _, err := f.ReadAt(super[:], superOffset); err != nil {
		return fmt.Errorf("read %s: %w", device, err)
	}
	block, now, err := extent(super[:])
	if err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	blocks := size / block
	if blocks <= now {
		return nil // asking the kernel would cost more than reading this
	}
	if err := ioctl(dir.Fd(), ext4ResizeFS, &blocks); err != nil {
		return fmt.Errorf("grow the file system to %d blocks: %w", blocks, err)
	}
	return nil
}

// Where an ext4's superblock is.
const superOffset, superSize = 1024, 1024

// extent reads the size and number of a file system's blocks from its superblock.
func extent(super []byte) (size, blocks uint64, err error) {
	le := binary.LittleEndian
	exponent := le.Uint32(super[0x18:])
	if le.Uint16(super[0x38:]) != 0xef53 || exponent > 6 {
		return 0, 0, errors.New("it holds no ext4")
	}
	blocks = uint64(le.Uint32(super[0x4:]))
	if has64bit := le.Uint32(super[0x60:])&0x80 != 0; has64bit {
		blocks |= uint64(le.Uint32(super[0x150:])) << 32
	}
	return 1024 << exponent, blocks, nil
}

// marked reports whether a grow failed because the file system saw errors before: a full disk of the host's is enough. It
// was replayed from its journal and is as large as it was: a VM must start from that, not stay shut for ever.
func marked(err error) bool { return errors.Is(err, unix.EPERM) }

// dropCache forgets what the kernel has read of the device.
func dropCache(device string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0)
}

// addEntropy gives the kernel's generator bytes that count, and makes it use them.
func addEntropy(seed []byte) error {
	if len(seed) < 32 {
		return fmt.Errorf("a seed of %d bytes is too short", len(seed))
	}
	f, err := os.OpenFile("/dev/urandom", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var pool struct {
		bits, size int32
		buf        [256]byte
	}
	n := copy(pool.buf[:], seed)
	pool.bits, pool.size = int32(n*8), int32(n) //nolint:gosec // at most 256
	if err := ioctl(f.Fd(), unix.RNDADDENTROPY, &pool); err != nil {
		return fmt.Errorf("add entropy: %w", err)
	}
	if err := ioctl[byte](f.Fd(), unix.RNDRESEEDCRNG, nil); err != nil {
		return fmt.Errorf("reseed: %w", err)
	}
	return nil
}
