package debian

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/apt"
)

// slow skips what takes long and needs the network: it belongs to the lane of the VM tests.
func slow(t *testing.T) {
	t.Helper()
	if os.Getenv("SMOLVM_VM_TESTS") != "1" {
		t.Skip("set SMOLVM_VM_TESTS=1: this builds a Debian image from the network")
	}
}

func testArchive(t *testing.T) apt.Archive {
	t.Helper()
	a, err := apt.NewArchive(os.Getenv("SMOLVM_DEBIAN_MIRROR"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestVMDefaultImage builds the image as users get it, in memory, and looks at every file of it.
func TestVMDefaultImage(t *testing.T) {
	slow(t)
	saved := filepath.Join(t.TempDir(), "root.tar")
	f, err := os.OpenFile(saved, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var steps []api.Progress
	started := time.Now()
	facts, err := Builder{Archive: testArchive(t)}.Build(t.Context(),
		image.BuildRequest{Progress: func(p api.Progress) { steps = append(steps, p) }, Scratch: t.TempDir()}, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %s", time.Since(started).Round(time.Second))
	checkSteps(t, steps)
	checkSBOM(t, facts.Packages)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	checkTar(t, f)
	checkNothingRuns(t)

	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	s := image.New(image.Options{Home: t.TempDir(), Version: "test"})
	started = time.Now()
	img, err := s.Import(t.Context(), Name, f, facts, Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ext4 in %s: %d MB", time.Since(started).Round(time.Millisecond), img.SizeBytes/1e6)
	if img.SizeBytes > 500e6 {
		t.Errorf("the image has %d bytes", img.SizeBytes)
	}
	if fsck, err := exec.LookPath("/sbin/e2fsck"); err == nil {
		out, err := exec.CommandContext(t.Context(), fsck, "-fn", img.Path).CombinedOutput()
		if !regexp.MustCompile(`\d+/\d+ files`).Match(out) || strings.Contains(string(out), "corrupt") {
			t.Errorf("e2fsck: %v: %s", err, out)
		}
	}
	full, err := s.Inspect(Name)
	if err != nil || len(full.Packages) != len(facts.Packages) {
		t.Errorf("inspect: %d packages, %v", len(full.Packages), err)
	}
}

func checkSteps(t *testing.T, steps []api.Progress) {
	t.Helper()
	var last int64
	for _, p := range steps {
		if p.Done < last || p.Done > p.Total || p.Detail == "" {
			t.Fatalf("progress goes from %d to %+v", last, p)
		}
		last = p.Done
	}
	if len(steps) < 300 || last != steps[len(steps)-1].Total {
		t.Errorf("%d steps of progress, the last %+v", len(steps), steps[len(steps)-1])
	}
}

func checkSBOM(t *testing.T, sbom []api.Package) {
	t.Helper()
	have := map[string]bool{}
	for _, p := range sbom {
		have[p.Name] = true
		if p.Version == "" || p.Arch == "" || len(p.SHA256) != 64 {
			t.Errorf("incomplete: %+v", p)
		}
	}
	for _, p := range append(Packages(), "apt", "dpkg", "libc6") {
		if !have[p] {
			t.Errorf("package %s is not in the image", p)
		}
	}
	t.Logf("%d packages", len(sbom))
}

func checkTar(t *testing.T, r io.Reader) {
	t.Helper()
	bad := regexp.MustCompile(`^(etc/(machine-id|hostname|hosts|resolv\.conf|ssh/ssh_host_.*|apt/sources\.list)|` +
		`var/lib/apt/lists/.*[^/]|var/log/.*[^/]|dev/.+|tmp/.+|run/.+|.*mmdebstrap.*)$`)
	seen, setuid := map[string]bool{}, false
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if bad.MatchString(h.Name) {
			t.Errorf("%s is in the image", h.Name)
		}
		if seen[h.Name] {
			t.Errorf("%s is in the image twice", h.Name)
		}
		seen[h.Name] = true
		switch h.Name {
		case "usr/bin/passwd":
			setuid = h.Mode&0o4000 != 0 && h.Uid == 0
		case sourcesFile:
			b, err := io.ReadAll(in)
			if err != nil || strings.Count(string(b), "Signed-By: "+apt.GuestKeyring) != 2 ||
				!strings.Contains(string(b), "trixie-security") || !strings.Contains(string(b), "trixie-updates") {
				t.Errorf("debian.sources: %v: %s", err, b)
			}
		}
	}
	for _, name := range []string{
		"usr/bin/python3", "usr/bin/git", "usr/sbin/sshd", "dev/", "proc/", "sys/", "run/", "tmp/", "var/log/", "bin",
		sourcesFile, statusFile, strings.TrimPrefix(apt.GuestKeyring, "/"),
	} {
		if !seen[name] {
			t.Errorf("%s is not in the image", name)
		}
	}
	if !setuid {
		t.Error("passwd has lost its owner or mode")
	}
}

// checkNothingRuns looks for a process or a mount of a build.
func checkNothingRuns(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		left := traces(t)
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left of a build: %s", left)
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func traces(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, p := range found {
		b, err := os.ReadFile(p)
		if err == nil && strings.Contains(string(b), "keyring=/tmp/keyring.gpg") {
			left = append(left, p)
		}
	}
	for _, pattern := range []string{"/tmp/mmdebstrap*", "/tmp/keyring.gpg"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, files...)
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil && strings.Contains(string(b), "mmdebstrap") {
		left = append(left, "a mount")
	}
	return strings.Join(left, " ")
}

// TestVMUntrustedArchive offers mmdebstrap keys that did not sign the archive.
func TestVMUntrustedArchive(t *testing.T) {
	slow(t)
	b := Builder{Archive: testArchive(t), keyring: wrongKey(t)}
	_, err := b.Build(t.Context(), image.BuildRequest{}, io.Discard)
	if !errdefs.Is(err, errdefs.Image) || !strings.Contains(err.Error(), "trusted") {
		t.Errorf("got %v", err)
	}
	checkNothingRuns(t)
}

func wrongKey(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("../apt/keys/debian-archive-trixie-stable.gpg") // it does not sign the security suite
	if err != nil {
		t.Fatal(err)
	}
	return b
}
