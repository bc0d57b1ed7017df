package filecopy

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func file(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestCopy: the content is the same to the last byte, and what is empty takes no room.
func TestCopy(t *testing.T) {
	const size = 40*block + 123
	want := make([]byte, size)
	for i := range want[7*block+5 : 9*block] {
		want[7*block+5+i] = byte(rand.Uint32()) //nolint:gosec // any bytes
	}
	want[size-1] = 1
	from := file(t, "from")
	if err := from.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, part := range [][2]int{{3 * block, 9 * block}, {size - 1, size}} { // the first with zeros that are written
		if _, err := from.WriteAt(want[part[0]:part[1]], int64(part[0])); err != nil {
			t.Fatal(err)
		}
	}
	for name, copied := range map[string]func(to *os.File) error{
		"copy":  func(to *os.File) error { return Copy(t.Context(), to, from, nil) },
		"clone": func(to *os.File) error { return Clone(t.Context(), to, from) },
		"sum": func(to *os.File) error {
			sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
			err := Copy(t.Context(), to, from, sum)
			if got := crc32.Checksum(want, crc32.MakeTable(crc32.Castagnoli)); sum.Sum32() != got {
				t.Errorf("the sum is %x, want %x", sum.Sum32(), got)
			}
			return err
		},
	} {
		to := file(t, name)
		if err := copied(to); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(to.Name())
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: another content (%v)", name, err)
		}
		var st syscall.Stat_t
		if err := syscall.Fstat(int(to.Fd()), &st); err != nil || name != "clone" && st.Blocks*512 > 8*block {
			t.Errorf("%s: %d blocks, %v", name, st.Blocks, err)
		}
	}
}

func TestCopyEnds(t *testing.T) {
	from := file(t, "from")
	if _, err := from.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Copy(ctx, file(t, "to"), from, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	closed := file(t, "closed")
	_ = closed.Close()
	if err := Copy(t.Context(), file(t, "to"), closed, nil); err == nil {
		t.Error("copied a closed file")
	}
}
