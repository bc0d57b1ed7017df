package hostpath

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
)

// TestCheck: regular files below a directory, and nothing by any other way.
func TestCheck(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "allowed")
	for _, d := range []string{dir, dir + "/sub", dir + "x"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{dir + "/kernel", dir + "/sub/rootfs", dir + "x/file", top + "/secret"} {
		if err := os.WriteFile(f, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"inside": "sub/rootfs", "out": "/etc/shadow", "up": "../secret", "dirs": "/etc", "self": "self", "absolute": dir + "/kernel", "chain": "up",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := Below([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{dir + "/kernel": dir + "/kernel", dir + "/sub/rootfs": dir + "/sub/rootfs", dir + "/inside": dir + "/sub/rootfs"} {
		if got, err := a.Check(path); err != nil || got != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	for _, path := range []string{
		"/etc/shadow", "/etc/no-such-file", dir + "/../secret", dir + "/sub/../../secret", "../secret", "kernel", "", dir, dir + "/", dir + "x/file", top + "/secret",
		dir + "/out", dir + "/up", dir + "/chain", dir + "/dirs/shadow", dir + "/self", dir + "/fifo", dir + "/sub", dir + "//kernel", dir + "/kernel\x00",
		"cmd:id", "file:///etc/shadow", "env:HOME", "/proc/self/root/etc/shadow", "/dev/zero",
	} {
		if got, err := a.Check(path); !errdefs.Is(err, errdefs.Denied) {
			t.Errorf("%q: %q, %v", path, got, err)
		}
	}
	if _, err := a.Check(dir + "/absent"); !errdefs.Is(err, errdefs.NotFound) {
		t.Error(err)
	}
	if got, err := (Allowed{}).Check(dir + "/kernel"); !errdefs.Is(err, errdefs.Denied) {
		t.Errorf("with nothing allowed: %q, %v", got, err)
	}
	for _, bad := range []string{"/", dir + "/kernel", dir + "/absent"} {
		if _, err := Below([]string{bad}); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("allow %s: %v", bad, err)
		}
	}
}
