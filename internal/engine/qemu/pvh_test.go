package qemu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
)

// note is one of an ELF file's notes.
func note(owner string, kind uint32, desc string) []byte {
	b := make([]byte, 12)
	binary.LittleEndian.PutUint32(b, uint32(len(owner)))
	binary.LittleEndian.PutUint32(b[4:], uint32(len(desc)))
	binary.LittleEndian.PutUint32(b[8:], kind)
	pad := func(s string) string { return s + string(make([]byte, (4-len(s)%4)%4)) }
	return append(append(b, pad(owner)...), pad(desc)...)
}

func TestHasNote(t *testing.T) {
	other, pvh := note("GNU\x00", 3, "build"), note("Xen\x00", 18, "\x00\x00\x00\x01")
	for _, tt := range []struct {
		b    []byte
		want bool
	}{
		{nil, false},
		{other, false},
		{pvh, true},
		{append(append([]byte{}, other...), pvh...), true},
		{note("Xen\x00", 6, "linux"), false},
		{note("xen\x00", 18, ""), false},
		{pvh[:14], false},
		{[]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x12\x00\x00\x00Xen\x00"), false},
	} {
		if got := hasNote(tt.b, pvhOwner, pvhEntry); got != tt.want {
			t.Errorf("%q: %v", tt.b, got)
		}
	}
}

// TestCheckKernel: a program is no kernel; what is no ELF file is QEMU's own matter.
func TestCheckKernel(t *testing.T) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = self.Close() }()
	if err := checkKernel(self); !errdefs.Is(err, errdefs.Image) {
		t.Errorf("this test as a kernel: %v", err)
	}
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := os.Open(path) //nolint:gosec // ours
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = text.Close() }()
	if err := checkKernel(text); err != nil {
		t.Error(err)
	}
}

func FuzzHasNote(f *testing.F) {
	f.Add(note("Xen\x00", 18, "\x00\x00\x00\x01"))
	f.Fuzz(func(_ *testing.T, b []byte) { hasNote(b, pvhOwner, pvhEntry) })
}
