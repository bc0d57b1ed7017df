package ext4_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image/ext4"
)

func create(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "fs"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func sample(t *testing.T, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 12, Gid: 70000},
		{Name: "etc/data", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 1000, Size: int64(size)},
		{Name: "etc/hard", Typeflag: tar.TypeLink, Linkname: "etc/data"},
		{Name: "etc/soft", Typeflag: tar.TypeSymlink, Linkname: "data"},
		{
			Name: "etc/caps", Typeflag: tar.TypeReg, Mode: 0o755, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.user.x": "value"},
		},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write(bytes.Repeat([]byte("d"), size)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// debugfs asks e2fsprogs what is in the file system.
func debugfs(t *testing.T, path, request string) string {
	t.Helper()
	tool := "/sbin/debugfs"
	if _, err := os.Stat(tool); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("debugfs is not installed (package e2fsprogs)")
		}
		t.Skip("debugfs is not installed")
	}
	out, err := exec.CommandContext(t.Context(), tool, "-R", request, path).CombinedOutput()
	if err != nil {
		t.Fatalf("debugfs: %v: %s", err, out)
	}
	return string(out)
}

func TestConvert(t *testing.T) {
	f := create(t, t.TempDir())
	// Larger than the step of the early write, so that its path is gone too.
	if err := ext4.Convert(t.Context(), bytes.NewReader(sample(t, 40<<20)), f, 1<<30); err != nil {
		t.Fatal(err)
	}
	magic := make([]byte, 2)
	if _, err := f.ReadAt(magic, 1024+56); err != nil || binary.LittleEndian.Uint16(magic) != 0xef53 {
		t.Fatalf("no ext4: % x, %v", magic, err)
	}
	for request, want := range map[string][]string{
		"stat /etc":         {"Mode:  0700", "User:    12", "Group: 70000"},
		"stat /etc/data":    {"Mode:  04755", "User:  1000", "Links: 2", "Size: 41943040"},
		"stat /etc/soft":    {"symlink", `"data"`},
		"ea_list /etc/caps": {"user.x", "value"},
	} {
		got := debugfs(t, f.Name(), request)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: no %q in %s", request, w, got)
			}
		}
	}
	dump := filepath.Join(t.TempDir(), "data")
	debugfs(t, f.Name(), "dump /etc/data "+dump)
	if b, err := os.ReadFile(dump); err != nil || !bytes.Equal(b, bytes.Repeat([]byte("d"), 40<<20)) {
		t.Errorf("the file's content differs: %d bytes, %v", len(b), err)
	}
}

func TestConvertRefuses(t *testing.T) {
	good := sample(t, 1<<20)
	boom := errors.New("the builder failed")
	for _, c := range []struct {
		name string
		in   io.Reader
		max  int64
		want func(error) bool
	}{
		{"more than the maximum", bytes.NewReader(good), 512 << 10, func(err error) bool { return errdefs.Is(err, errdefs.Image) }},
		{"cut off", bytes.NewReader(good[:len(good)/2]), 0, func(err error) bool { return errdefs.Is(err, errdefs.Image) }},
		{"no tar", strings.NewReader(strings.Repeat("x", 4096)), 0, func(err error) bool { return errdefs.Is(err, errdefs.Image) }},
		{"the source's own error", io.MultiReader(bytes.NewReader(good[:2048]), broken{boom}), 0, func(err error) bool { return errors.Is(err, boom) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := ext4.Convert(t.Context(), c.in, create(t, t.TempDir()), c.max); !c.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

func TestConvertEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ext4.Convert(ctx, bytes.NewReader(sample(t, 1)), create(t, t.TempDir()), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestConvertOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		if os.Geteuid() == 0 && os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("a small disk needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	err := ext4.Convert(t.Context(), bytes.NewReader(sample(t, 4<<20)), create(t, dir), 0)
	if !errdefs.Is(err, errdefs.Exhausted) {
		t.Errorf("got %s: %v", errdefs.ClassOf(err), err)
	}
}

// FuzzConvert: no tar whatever ends the process, or makes more than it may.
func FuzzConvert(f *testing.F) {
	f.Add([]byte("hello"))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "a/b", Typeflag: tar.TypeReg, Size: 3})
	_, _ = w.Write([]byte("abc"))
	_ = w.WriteHeader(&tar.Header{Name: "a/c", Typeflag: tar.TypeLink, Linkname: "a/b"})
	_ = w.Close()
	f.Add(b.Bytes())
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = out.Close(); _ = os.Remove(out.Name()) }()
		const max = 8 << 20
		_ = ext4.Convert(t.Context(), bytes.NewReader(in), out, max)
		if st, err := out.Stat(); err != nil || st.Size() > max {
			t.Errorf("%d bytes, %v", st.Size(), err)
		}
	})
}
