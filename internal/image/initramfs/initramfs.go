// Package initramfs writes the first file system of a guest: the agent as /init and the kernel modules it must load
// before it can mount anything. The format is the kernel's "newc" cpio archive, uncompressed (the modules already are).
//
// Layer: below image. It imports none of ours.
package initramfs

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Align is a page. QEMU puts an initramfs at the end of the memory, into whose last page the firmware of QEMU 8 and newer
// has put the ACPI tables: one of whole pages ends before it, any other overwrites them, and the kernel hangs.
const Align = 4096

// Module is one kernel module file, as it lies in Debian's package.
type Module struct {
	Name string // file name without a directory, "virtio_blk.ko.xz"
	Data []byte
}

// Write writes the archive: /init = agent, /modules/NAME per module, /modules/list with the names in load order, one
// per line, /dev/console, and the empty directories that an init mounts on. The same input gives the same bytes. Its size is
// a multiple of Align.
func Write(w io.Writer, agent []byte, modules []Module) error {
	_, err := write(bufio.NewWriterSize(w, 1<<20), agent, modules)
	return err
}

// Size is the size of what Write writes.
func Size(agent []byte, modules []Module) (int64, error) {
	return write(bufio.NewWriter(io.Discard), agent, modules)
}

func write(w *bufio.Writer, agent []byte, modules []Module) (size int64, err error) {
	a := &archive{w: w}
	for _, d := range []string{"dev", "proc", "sys", "run", "new", "modules"} {
		a.add(entry{name: d, mode: modeDir | 0o755, nlink: 2})
	}
	// Without it the kernel starts /init with no standard streams.
	a.add(entry{name: "dev/console", mode: modeChar | 0o600, nlink: 1, major: 5, minor: 1})
	a.add(entry{name: "init", mode: modeFile | 0o755, nlink: 1, data: agent})
	var list strings.Builder
	for _, m := range modules {
		if strings.ContainsAny(m.Name, "/\n\x00") || m.Name == "" || m.Name == "list" {
			return 0, fmt.Errorf("module file name %q", m.Name)
		}
		fmt.Fprintln(&list, m.Name)
		a.add(entry{name: "modules/" + m.Name, mode: modeFile | 0o444, nlink: 1, data: m.Data})
	}
	a.add(entry{name: "modules/list", mode: modeFile | 0o444, nlink: 1, data: []byte(list.String())})
	a.add(entry{name: "TRAILER!!!", nlink: 1})
	a.pad(Align)
	if a.err != nil {
		return 0, a.err
	}
	return a.size, a.w.Flush()
}

// File types of the mode field (stat(2)).
const (
	modeDir  = 0o040000
	modeChar = 0o020000
	modeFile = 0o100000
)

type entry struct {
	name         string
	mode, nlink  uint32
	major, minor uint32
	data         []byte
}

type archive struct {
	w    *bufio.Writer
	size int64
	ino  uint32
	err  error
}

// add writes one entry; after an error it does nothing.
func (a *archive) add(e entry) {
	a.ino++
	if int64(len(e.data)) > 0xffffffff {
		a.err = fmt.Errorf("%s is larger than the format allows", e.name)
	}
	// magic, ino, mode, uid, gid, nlink, mtime, size, dev major and minor, rdev major and minor, name size, checksum
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.ino, e.mode, 0, 0, e.nlink, 0, len(e.data), 0, 0, e.major, e.minor, len(e.name)+1, 0)
	a.write([]byte(head + e.name + "\x00"))
	a.pad(4)
	a.write(e.data)
	a.pad(4)
}

func (a *archive) write(b []byte) {
	if a.err != nil {
		return
	}
	_, a.err = a.w.Write(b)
	a.size += int64(len(b))
}

// pad writes zeros up to the next multiple of n, which readers of the format skip.
func (a *archive) pad(n int64) { a.write(make([]byte, (n-a.size%n)%n)) }
