package kernel

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func tarOf(t *testing.T, files map[string]string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(1e9, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestUnpackTar(t *testing.T) {
	for _, c := range []struct {
		name, release string
		files         map[string]string
	}{
		{"Debian 13", "6.12.1+deb13-cloud-amd64", map[string]string{
			"./boot/vmlinuz-6.12.1+deb13-cloud-amd64":                    "kernel",
			"./usr/lib/modules/6.12.1+deb13-cloud-amd64/kernel/a.ko.xz":  "a",
			"./usr/lib/modules/6.12.1+deb13-cloud-amd64/modules.builtin": "b",
			"./usr/share/doc/x": "not ours",
		}},
		{"before merged /usr", "6.1.0", map[string]string{"./boot/vmlinuz-6.1.0": "kernel", "./lib/modules/6.1.0/modules.builtin": "b"}},
		{"no modules", "", map[string]string{"./boot/vmlinuz-6.1.0": "kernel"}},
		{"no kernel", "", map[string]string{"./lib/modules/6.1.0/modules.builtin": "b"}},
		{"a release that is a path", "", map[string]string{"./boot/vmlinuz-1": "k", "./lib/modules/-rf/modules.builtin": "b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			release, err := unpackTar(tarOf(t, c.files), dir)
			if release != c.release || (err == nil) != (c.release != "") {
				t.Fatalf("got %q, %v", release, err)
			}
			if err != nil {
				return
			}
			if b, err := os.ReadFile(filepath.Join(dir, "vmlinuz")); err != nil || string(b) != "kernel" {
				t.Errorf("vmlinuz: %q, %v", b, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "lib/modules", release, "modules.builtin")); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(dir, "usr")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("more than we need is unpacked: %v", err)
			}
		})
	}
}

func TestUnpackTarStaysInside(t *testing.T) {
	dir := t.TempDir()
	inside := filepath.Join(dir, "in")
	if err := os.Mkdir(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	_, _ = unpackTar(tarOf(t, map[string]string{"../lib/modules/../../../evil": "x", "lib/modules/1/../../../../evil": "x"}), inside)
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("beside the directory: %v, %v", left, err)
	}
}

func TestWriteTreeIsTheSameEachTime(t *testing.T) {
	var first []byte
	for range 2 {
		dir := t.TempDir()
		for _, name := range []string{"modules.builtin", "modules.dep", "kernel/a.ko.xz"} {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		stamp := time.Unix(1e9, 0)
		if err := os.Chtimes(filepath.Join(dir, "modules.builtin"), stamp, stamp); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := writeTree(&b, dir); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b.Bytes()
		} else if !bytes.Equal(first, b.Bytes()) {
			t.Error("the same tree gives other bytes")
		}
	}
}
