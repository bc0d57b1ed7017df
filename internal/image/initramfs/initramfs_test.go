package initramfs_test

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/internal/image/initramfs"
)

type file struct {
	mode, major, minor uint64
	data               string
}

// unpack reads a newc archive as the kernel does: headers at multiples of four, until the trailer.
func unpack(t *testing.T, b []byte) (names []string, files map[string]file) {
	t.Helper()
	files = map[string]file{}
	for off := 0; ; {
		if off%4 != 0 || len(b) < off+110 || string(b[off:off+6]) != "070701" {
			t.Fatalf("no header at %d", off)
		}
		field := func(i int) uint64 {
			n, err := strconv.ParseUint(string(b[off+6+8*i:off+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		nameLen, size := int(field(11)), int(field(6))
		name := string(b[off+110 : off+110+nameLen-1])
		body := (off + 110 + nameLen + 3) &^ 3
		if name == "TRAILER!!!" {
			return names, files
		}
		if _, twice := files[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		names = append(names, name)
		files[name] = file{mode: field(1), major: field(9), minor: field(10), data: string(b[body : body+size])}
		off = (body + size + 3) &^ 3
	}
}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	mods := []initramfs.Module{{Name: "b.ko.xz", Data: []byte("bb")}, {Name: "a.ko.xz", Data: []byte("aaaaa")}}
	if err := initramfs.Write(&b, []byte("agent"), mods); err != nil {
		t.Fatal(err)
	}
	if b.Len()%initramfs.Align != 0 {
		t.Errorf("%d bytes are no whole pages", b.Len())
	}
	if size, err := initramfs.Size([]byte("agent"), mods); err != nil || size != int64(b.Len()) {
		t.Errorf("Size = %d, %v, want %d", size, err, b.Len())
	}
	names, files := unpack(t, b.Bytes())
	for name, want := range map[string]file{
		"init":            {mode: 0o100755, data: "agent"},
		"modules/list":    {mode: 0o100444, data: "b.ko.xz\na.ko.xz\n"},
		"modules/a.ko.xz": {mode: 0o100444, data: "aaaaa"},
		"modules/b.ko.xz": {mode: 0o100444, data: "bb"},
		"dev/console":     {mode: 0o020600, major: 5, minor: 1},
		"dev":             {mode: 0o040755},
		"proc":            {mode: 0o040755},
		"sys":             {mode: 0o040755},
		"run":             {mode: 0o040755},
		"new":             {mode: 0o040755},
		"modules":         {mode: 0o040755},
	} {
		if files[name] != want {
			t.Errorf("%s: got %+v, want %+v", name, files[name], want)
		}
		delete(files, name)
	}
	if len(files) != 0 {
		t.Errorf("also there: %v", files)
	}
	if order := strings.Join(names, " "); strings.Index(order, "dev ") > strings.Index(order, "dev/console") {
		t.Errorf("a directory comes after what is in it: %s", order)
	}

	var again bytes.Buffer
	if err := initramfs.Write(&again, []byte("agent"), mods); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("the same input gives other bytes (%v)", err)
	}
}

func TestWriteRefusesNames(t *testing.T) {
	for _, name := range []string{"", "a/b", "../x", "a\nb", "list", "a\x00"} {
		if err := initramfs.Write(io.Discard, nil, []initramfs.Module{{Name: name}}); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, fmt.Errorf("full") }

func TestWriteTellsAnError(t *testing.T) {
	if err := initramfs.Write(full{}, make([]byte, 4<<20), nil); err == nil {
		t.Error("no error")
	}
}
