package tarball_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/sys/tarball"
)

// archive makes a tar of headers; a regular file's content is its size in x.
func archive(t testing.TB, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func unpack(t testing.TB, dir string, data *bytes.Buffer, how tarball.Unpacking) error {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	if how.MaxBytes == 0 {
		how.MaxBytes = 1 << 20
	}
	return tarball.Unpack(t.Context(), root, data, how)
}

// arena makes DIR/out to unpack in, beside a file that nobody may touch.
func arena(t testing.TB) (out, secret string) {
	t.Helper()
	dir := t.TempDir()
	out, secret = filepath.Join(dir, "out"), filepath.Join(dir, "secret")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	return out, secret
}

// unharmed checks that nothing beside out has changed, and that no link in it leads outside.
func unharmed(t testing.TB, out, secret string) {
	t.Helper()
	b, err := os.ReadFile(secret)
	if err != nil || string(b) != "untouched" {
		t.Fatalf("the file outside holds %q (%v)", b, err)
	}
	st, err := os.Stat(secret)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("the file outside has mode %v (%v)", st.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(out))
	if err != nil || len(entries) != 2 {
		t.Fatalf("outside there are %v (%v)", entries, err)
	}
	top, err := filepath.EvalSymlinks(out)
	if err != nil {
		t.Fatal(err)
	}
	_ = filepath.WalkDir(out, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // a directory without permissions
		}
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			if to, err := filepath.EvalSymlinks(p); err == nil && to != top && !strings.HasPrefix(to, top+"/") {
				t.Fatalf("%s leads to %s", p, to)
			}
		case d.Type()&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket) != 0:
			t.Fatalf("%s is %v", p, d.Type())
		default:
			if st, err := d.Info(); err == nil && st.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
				t.Fatalf("%s has mode %v", p, st.Mode())
			}
		}
		return nil
	})
}

func TestUnpackHostile(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 4} }
	dir := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }
	sym := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	hard := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
	}
	tests := []struct {
		name    string
		entries []tar.Header
		refused int
		there   []string // beside "good"
	}{
		{"plain", []tar.Header{dir("d/"), file("d/f"), sym("d/l", "f"), hard("h", "d/f"), sym("up", "d/../d/f")}, 1, []string{"d/f", "d/l", "h"}},
		{"absolute", []tar.Header{file("/etc/cron.d/evil")}, 1, nil},
		{"dotdot", []tar.Header{file("../secret"), file("a/../../secret"), file("..")}, 3, nil},
		{"symlink outside", []tar.Header{sym("l", "../secret"), sym("m", "/etc/passwd"), sym("d/n", "../../secret"), sym("e", "")}, 4, nil},
		{"through a link", []tar.Header{sym("l", "."), file("l/f")}, 1, []string{"l"}},
		{"chain of links", []tar.Header{sym("a", "."), sym("b", "a/.."), file("b/secret")}, 1, []string{"a"}},
		{"deep link", []tar.Header{dir("q/r"), sym("q/r/s", "../.."), sym("q/r/s/l", "../../..")}, 1, []string{"q/r/s"}},
		{"moved link", []tar.Header{sym("x/y/l", "../.."), hard("m", "x/y/l")}, 1, []string{"x/y/l"}},
		{"hard link outside", []tar.Header{hard("l", "../secret"), hard("m", "/etc/passwd"), hard("n", "nothing")}, 3, nil},
		{"hard link through a link", []tar.Header{dir("d"), file("d/f"), sym("l", "d"), hard("h", "l/f")}, 1, []string{"d/f"}},
		{"the directory itself", []tar.Header{sym(".", "/"), file("./."), file("f")}, 2, []string{"f"}},
		{"device", []tar.Header{{Typeflag: tar.TypeBlock, Name: "sda", Devmajor: 8}, {Typeflag: tar.TypeChar, Name: "mem", Devmajor: 1, Devminor: 1}, {Typeflag: tar.TypeFifo, Name: "p"}}, 3, nil},
		{"link in place of a directory", []tar.Header{dir("d"), file("d/f"), sym("d", "..")}, 1, []string{"d/f"}},
		{"directory in place of a link", []tar.Header{sym("d", "."), dir("d")}, 1, nil},
		{"set-uid", []tar.Header{{Typeflag: tar.TypeReg, Name: "su", Mode: 0o6755}}, 0, []string{"su"}},
		{"long name", []tar.Header{file(strings.Repeat("n/", 3000) + "f")}, 1, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, secret := arena(t)
			err := unpack(t, out, archive(t, append(tt.entries, file("good"))...), tarball.Unpacking{})
			got := 0
			if r, ok := errors.AsType[*tarball.RefusedError](err); ok {
				got, err = r.Count, nil
			}
			if err != nil || got != tt.refused {
				t.Errorf("%d entries were refused, want %d; error: %v", got, tt.refused, err)
			}
			unharmed(t, out, secret)
			for _, name := range append(tt.there, "good") {
				if _, err := os.Lstat(filepath.Join(out, name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestUnpackMillion: a million entries are read one by one and counted, whatever they are; none is kept.
func TestUnpackMillion(t *testing.T) {
	out, secret := arena(t)
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		var err error
		for i := 0; i < many && err == nil; i++ {
			h := &tar.Header{Typeflag: tar.TypeSymlink, Name: "l" + strconv.Itoa(i), Linkname: "/etc/passwd"}
			switch i % 4 {
			case 1:
				h = &tar.Header{Typeflag: tar.TypeReg, Name: "../secret" + strconv.Itoa(i)}
			case 2:
				h = &tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "/etc/passwd"}
			case 3:
				h = &tar.Header{Typeflag: tar.TypeChar, Name: "dev" + strconv.Itoa(i), Devmajor: 1}
			}
			err = tw.WriteHeader(h)
		}
		_ = w.CloseWithError(errors.Join(err, tw.Close()))
	}()
	root, err := os.OpenRoot(out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	err = tarball.Unpack(t.Context(), root, r, tarball.Unpacking{MaxBytes: 1 << 20})
	runtime.GC()
	runtime.ReadMemStats(&after)
	if r, ok := errors.AsType[*tarball.RefusedError](err); !ok || r.Count != many {
		t.Errorf("%v", err)
	}
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 8<<20 { //nolint:gosec // far below 2^63
		t.Errorf("%d bytes are still held", grown)
	}
	unharmed(t, out, secret)
}

func TestUnpackTooLarge(t *testing.T) {
	out, _ := arena(t)
	data := archive(t, tar.Header{Name: "a", Size: 600}, tar.Header{Name: "b", Size: 600})
	if err := unpack(t, out, data, tarball.Unpacking{MaxBytes: 1000}); !errors.Is(err, tarball.ErrTooLarge) {
		t.Errorf("1200 bytes where 1000 are allowed: %v", err)
	}
}

func TestUnpackRename(t *testing.T) {
	out, _ := arena(t)
	data := archive(t, tar.Header{Typeflag: tar.TypeDir, Name: "src/", Mode: 0o500}, tar.Header{Name: "src/f", Size: 1}, tar.Header{Name: "other/f", Size: 1},
		tar.Header{Typeflag: tar.TypeLink, Name: "src/h", Linkname: "src/f"})
	err := unpack(t, out, data, tarball.Unpacking{From: "src", To: "dst"})
	if r, ok := errors.AsType[*tarball.RefusedError](err); !ok || r.Count != 1 {
		t.Errorf("what is not in the directory asked for was not refused: %v", err)
	}
	for _, name := range []string{"dst/f", "dst/h"} {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Error(err)
		}
	}
	if st, err := os.Stat(filepath.Join(out, "dst")); err != nil || st.Mode().Perm() != 0o500 {
		t.Errorf("the directory has mode %v (%v)", st.Mode(), err)
	}
	_ = os.Chmod(filepath.Join(out, "dst"), 0o700) // so that it can be removed
}

// TestPackUnpack: a tree that went through both is the same.
func TestPackUnpack(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	when := time.Unix(1_600_000_000, 0)
	for _, step := range []error{
		os.MkdirAll(filepath.Join(src, "a/b"), 0o755),
		os.WriteFile(filepath.Join(src, "a/b/run"), []byte("content"), 0o755),
		os.Chmod(filepath.Join(src, "a/b/run"), 0o755),
		os.Chtimes(filepath.Join(src, "a/b/run"), when, when),
		os.Symlink("b/run", filepath.Join(src, "a/link")),
		os.Symlink("/outside", filepath.Join(src, "a/outside")),
		os.WriteFile(filepath.Join(src, "empty"), nil, 0o600),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	root, err := os.OpenRoot(src)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	var b bytes.Buffer
	if skipped, err := tarball.Pack(t.Context(), &b, root, "top"); err != nil || skipped != 0 {
		t.Fatal(skipped, err)
	}
	err = unpack(t, dst, &b, tarball.Unpacking{From: "top", To: "new"})
	if r, ok := errors.AsType[*tarball.RefusedError](err); !ok || r.Count != 1 || !strings.Contains(r.First, "outside") {
		t.Errorf("the absolute link: %v", err)
	}
	got, err := os.ReadFile(filepath.Join(dst, "new/a/link"))
	if err != nil || string(got) != "content" {
		t.Errorf("through the link: %q, %v", got, err)
	}
	if st, err := os.Stat(filepath.Join(dst, "new/a/b/run")); err != nil || st.Mode().Perm() != 0o755 || !st.ModTime().Equal(when) {
		t.Errorf("%v (%v)", st, err)
	}
	if st, err := os.Stat(filepath.Join(dst, "new/empty")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v (%v)", st, err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, tar.Header{Name: "a", Size: 3}, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../x"}).Bytes())
	f.Add(archive(f, tar.Header{Typeflag: tar.TypeSymlink, Name: "a/l", Linkname: ".."}, tar.Header{Name: "a/l/x", Size: 3}).Bytes())
	f.Add(archive(f, tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "../secret"}, tar.Header{Name: "h", Size: 3}).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		out, secret := arena(t)
		_ = unpack(t, out, bytes.NewBuffer(data), tarball.Unpacking{})
		unharmed(t, out, secret)
		_ = filepath.WalkDir(out, func(p string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(p, 0o700) //nolint:gosec // so that it can be removed
			}
			return nil
		})
	})
}
