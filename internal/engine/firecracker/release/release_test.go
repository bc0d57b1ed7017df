package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
)

// file is one of an archive's.
type file struct {
	name string
	body string
	kind byte
}

func script(version string) string {
	return "#!/bin/sh\necho 'Firecracker v" + version + "'\n"
}

// archive is a release as it is published.
func archive(t *testing.T, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.body)), Typeflag: f.kind}
		if f.kind == tar.TypeSymlink {
			h.Linkname, h.Size, f.body = "/etc/passwd", 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func program(version string) file {
	return file{name: fmt.Sprintf("release-v%s-%s/firecracker-v%s-%s", version, arch(), version, arch()), body: script(version)}
}

func jailer(version string) file {
	return file{name: fmt.Sprintf("release-v%s-%s/jailer-v%s-%s", version, arch(), version, arch()), body: script(version)}
}

func digest(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }

// site publishes archives by version, each with a digest.
func site(t *testing.T, archives map[string][]byte, digests map[string]string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for v, b := range archives {
			name := fmt.Sprintf("/v%s/firecracker-v%s-%s.tgz", v, v, arch())
			switch r.URL.Path {
			case name:
				_, _ = w.Write(b)
				return
			case name + ".sha256.txt":
				d := digests[v]
				if d == "" {
					d = digest(b)
				}
				_, _ = fmt.Fprintf(w, "%s  %s\n", d, filepath.Base(name))
				return
			}
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestInstall(t *testing.T) {
	good := archive(t, file{name: "release-v1.12.1/README", body: "x"}, program("1.12.1"), jailer("1.12.1"))
	dir := filepath.Join(t.TempDir(), "engines")
	o := Options{Dir: dir, Site: site(t, map[string][]byte{"1.12.1": good, "1.13.0": archive(t, program("1.13.0"))}, nil)}
	var seen int64
	o.Progress = func(done, _ int64) { seen = done }
	for range 2 { // a second time replaces the first
		m, err := Install(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if m.Version != "1.12.1" || m.SHA256 != digest(good) || m.Files["firecracker"] != digest([]byte(script("1.12.1"))) || m.Files["jailer"] == "" || seen != int64(len(good)) {
			t.Errorf("%+v, %d bytes were told of", m, seen)
		}
		if st, err := os.Stat(m.Path); err != nil || st.Mode().Perm() != 0o755 {
			t.Errorf("%v, %v", st, err)
		}
	}
	o.Version = "v1.13.0"
	if m, err := Install(t.Context(), o); err != nil || m.Version != "1.13.0" {
		t.Errorf("%+v, %v", m, err)
	}
	left(t, dir, "1.12.1", "1.13.0")
	if b, err := os.ReadDir(filepath.Join(dir, "1.12.1")); err != nil || len(b) != 3 {
		t.Errorf("%v, %v", b, err)
	}
}

func left(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) { //nolint:forbidigo // a test
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("in %s lie %v, want %v", dir, got, want)
	}
}

// TestInstallFrom: an archive of one's own needs no network.
func TestInstallFrom(t *testing.T) {
	b := archive(t, program("1.14.2"))
	path := filepath.Join(t.TempDir(), "a.tgz")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if m, err := Install(t.Context(), Options{Dir: dir, From: path, SHA256: digest(b), Site: "http://127.0.0.1:1"}); err != nil || m.Version != "1.14.2" || m.Source != path {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the user's archive is gone: %v", err)
	}
}

// TestRefused: what is wrong is named, and nothing is left.
func TestRefused(t *testing.T) {
	wrong := archive(t, program("1.12.1"))
	b := site(t, map[string][]byte{
		"1.12.1": wrong,
		"1.12.2": archive(t, program("1.12.1")),
		"1.12.3": archive(t, file{name: "x/firecracker-v1.12.3-" + arch(), body: script("1.12.4")}),
		"1.12.4": archive(t, file{name: "x/firecracker-v1.12.4-" + arch(), kind: tar.TypeSymlink}),
		"1.12.5": []byte("no archive"),
		"1.12.6": archive(t, file{name: "x/firecracker-v1.12.6-vax", body: "x"}),
		"1.12.7": archive(t, file{name: "x/firecracker-v1.12.7-" + arch(), body: "no program"}),
	}, map[string]string{"1.12.1": strings.Repeat("0", 64)})
	for _, tt := range []struct {
		name  string
		o     Options
		class errdefs.Class
		want  string
	}{
		{"another digest", Options{}, errdefs.Image, "its digest is " + digest(wrong)},
		{"not the wanted digest", Options{Version: "1.12.2", SHA256: strings.Repeat("1", 64)}, errdefs.Image, "is published with the digest"},
		{"another release", Options{Version: "1.12.2"}, errdefs.Image, "is release 1.12.1, not 1.12.2"},
		{"it says another", Options{Version: "1.12.3"}, errdefs.Image, "says that it is 1.12.4"},
		{"a link", Options{Version: "1.12.4"}, errdefs.Image, "there is no Firecracker in it"},
		{"no archive", Options{Version: "1.12.5"}, errdefs.Image, "gzip"},
		{"another machine", Options{Version: "1.12.6"}, errdefs.Image, "it is for vax"},
		{"no program", Options{Version: "1.12.7"}, errdefs.Image, "does not run here"},
		{"not published", Options{Version: "1.99.0"}, errdefs.Network, "404"},
		{"too old", Options{Version: "1.11.0"}, errdefs.Host, "1.12.0 or newer is needed"},
		{"broken", Options{Version: "1.16.0"}, errdefs.Host, "1.16.1 repairs that"},
		{"no version", Options{Version: "../x"}, errdefs.Invalid, "is not like"},
		{"no digest", Options{SHA256: "abc"}, errdefs.Invalid, "hexadecimal"},
		{"no file", Options{From: "/nonexistent.tgz"}, errdefs.Invalid, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Dir, tt.o.Site = filepath.Join(t.TempDir(), "e"), b
			_, err := Install(t.Context(), tt.o)
			if errdefs.ClassOf(err) != tt.class || !strings.Contains(fmt.Sprint(err), tt.want) {
				t.Errorf("%v of class %s, want %q of %s", err, errdefs.ClassOf(err), tt.want, tt.class)
			}
			left(t, tt.o.Dir)
		})
	}
}

// FuzzArchive: an archive is a stranger's until its digest was seen, and with --from it stays one.
func FuzzArchive(f *testing.F) {
	f.Add([]byte{0x1f, 0x8b}, []byte("x"))
	f.Fuzz(func(t *testing.T, b, sum []byte) {
		_, _ = parseChecksum(sum)
		dir := t.TempDir()
		m := Manifest{Files: map[string]string{}}
		if _, err := extract(bytes.NewReader(b), dir, &m); err == nil && m.Files["firecracker"] == "" {
			t.Fatal("there is no program")
		}
	})
}
