package qemu

import (
	"debug/elf"
	"encoding/binary"
	"io"
	"os"

	"github.com/smolvm/smolvm/errdefs"
)

// Of a kernel that can be started as Xen's guests are, which is how QEMU starts one that is not compressed.
const (
	pvhOwner = "Xen\x00"
	pvhEntry = 18
	maxNotes = 1 << 20
)

// checkKernel refuses a vmlinux that QEMU does not start: it says so, and then hangs. What is no ELF file is its own matter.
func checkKernel(f *os.File) error {
	e, err := elf.NewFile(io.NewSectionReader(f, 0, 1<<40))
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	for _, p := range e.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(p.Open(), maxNotes))
		if err == nil && hasNote(b, pvhOwner, pvhEntry) {
			return nil
		}
	}
	return errdefs.Image.Errorf("QEMU cannot start the kernel %s: it lacks CONFIG_PVH, or it is no kernel", f.Name())
}

// hasNote looks for a note in an ELF file's table of them.
func hasNote(b []byte, owner string, kind uint32) bool {
	const head = 12
	le := binary.LittleEndian
	for len(b) >= head {
		name, desc, is := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:])), le.Uint32(b[8:])
		b = b[head:]
		padded := (name + 3) &^ 3
		next := padded + (desc+3)&^3
		if name > uint64(len(b)) || padded > uint64(len(b)) {
			return false
		}
		if is == kind && string(b[:name]) == owner {
			return true
		}
		if next > uint64(len(b)) {
			return false
		}
		b = b[next:]
	}
	return false
}
