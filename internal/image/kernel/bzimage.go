package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Offsets in the x86 boot header (Documentation/arch/x86/boot.rst).
const (
	offSetupSects    = 0x1f1
	offMagic         = 0x202
	offVersion       = 0x206
	offPayloadOffset = 0x248
	offPayloadLength = 0x24c
	headerEnd        = 0x250

	sector        = 512
	minVersion    = 0x0208  // the first with the payload fields
	maxVmlinux    = 1 << 29 // Debian's is 58 MB
	maxZstdWindow = 256 << 20
)

// payload returns where in a bzImage of the given size its compressed vmlinux lies, without the four bytes after it that
// hold the plain size, which is the second value.
func payload(image io.ReaderAt, size int64) (*io.SectionReader, int64, error) {
	head := make([]byte, headerEnd)
	if _, err := image.ReadAt(head, 0); err != nil {
		return nil, 0, fmt.Errorf("read the boot header: %w", err)
	}
	if string(head[offMagic:offMagic+4]) != "HdrS" {
		return nil, 0, errors.New("not a Linux bzImage")
	}
	if v := binary.LittleEndian.Uint16(head[offVersion:]); v < minVersion {
		return nil, 0, fmt.Errorf("boot protocol %#x is too old", v)
	}
	sects := int64(head[offSetupSects])
	if sects == 0 {
		sects = 4
	}
	start := (sects+1)*sector + int64(binary.LittleEndian.Uint32(head[offPayloadOffset:]))
	length := int64(binary.LittleEndian.Uint32(head[offPayloadLength:]))
	if length <= 4 || start+length > size {
		return nil, 0, errors.New("the payload lies outside the image")
	}
	var plain [4]byte
	if _, err := image.ReadAt(plain[:], start+length-4); err != nil {
		return nil, 0, fmt.Errorf("read the payload's size: %w", err)
	}
	return io.NewSectionReader(image, start, length-4), int64(binary.LittleEndian.Uint32(plain[:])), nil
}

// extractVmlinux writes the ELF kernel inside a bzImage to w.
func extractVmlinux(image io.ReaderAt, size int64, w io.Writer) error {
	body, plain, err := payload(image, size)
	if err != nil {
		return err
	}
	var magic [4]byte
	if _, err := body.ReadAt(magic[:], 0); err != nil {
		return fmt.Errorf("read the payload: %w", err)
	}
	if !bytes.Equal(magic[:], []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		return fmt.Errorf("the payload is not zstd (it begins with % x)", magic)
	}
	if plain > maxVmlinux {
		return fmt.Errorf("a kernel of %d bytes is too large", plain)
	}
	d, err := zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		return fmt.Errorf("open the payload: %w", err)
	}
	defer d.Close()
	elf := make([]byte, 4)
	if _, err := io.ReadFull(d, elf); err != nil {
		return fmt.Errorf("unpack the payload: %w", err)
	}
	if string(elf) != "\x7fELF" {
		return errors.New("the payload is not an ELF kernel")
	}
	n, err := io.Copy(w, io.LimitReader(io.MultiReader(bytes.NewReader(elf), d), plain+1))
	if err != nil {
		return fmt.Errorf("unpack the payload: %w", err)
	}
	if n != plain {
		return fmt.Errorf("the payload unpacks to %d bytes or more, its trailer says %d", n, plain)
	}
	return nil
}
