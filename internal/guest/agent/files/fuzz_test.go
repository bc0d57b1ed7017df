package files

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzTarIn unpacks hostile archives: whatever is in them, nothing may appear beside the directory.
func FuzzTarIn(f *testing.F) {
	for _, hs := range [][]tar.Header{
		{{Name: "../x", Typeflag: tar.TypeReg}},
		{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/"}, {Name: "l/tmp/x", Typeflag: tar.TypeReg}},
		{{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "d/h", Typeflag: tar.TypeLink, Linkname: "../../x"}},
		{{Name: "p", Typeflag: tar.TypeFifo}},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range hs {
			_ = w.WriteHeader(&h)
		}
		_ = w.Close()
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		top := t.TempDir()
		in := filepath.Join(top, "in")
		var bufs Buffers
		_ = bufs.TarIn(in, bytes.NewReader(archive))
		entries, err := os.ReadDir(top)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) > 1 {
			t.Fatalf("unpacked beside the directory: %v", entries)
		}
	})
}

// FuzzMemberName holds that a tar's name stays below where it is unpacked.
func FuzzMemberName(f *testing.F) {
	for _, s := range []string{"a", "/a", "../a", "a/../../b", "//..", "./", "a//b/."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := memberName(name)
		if err == nil && got != "." && !filepath.IsLocal(got) {
			t.Fatalf("memberName(%q) = %q", name, got)
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("/a/../..")
	f.Add("a")
	f.Fuzz(func(t *testing.T, path string) {
		got, err := Clean(path)
		if err == nil && (!strings.HasPrefix(got, "/") || strings.Contains(got, "/../")) {
			t.Fatalf("Clean(%q) = %q", path, got)
		}
	})
}
