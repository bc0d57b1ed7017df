package rundir

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStrangersSocket: a monitor that is not itself any more cannot have us speak to another socket in its stead.
func TestStrangersSocket(t *testing.T) {
	d, err := Make(filepath.Join(t.TempDir(), "agent.sock"), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Remove)
	if err := os.Symlink("/run/docker.sock", filepath.Join(d.Path, APISocket)); err != nil {
		t.Fatal(err)
	}
	if s, err := d.Socket(t.Context(), nil, APISocket); err == nil {
		s.Close()
		t.Error("a link counts as the monitor's socket")
	}
}

// TestAnswer: of the monitor's line not a byte more is read than it has.
func TestAnswer(t *testing.T) {
	for in, rest := range map[string]string{"OK 1073741824\nhello": "hello", "OK 1\n": ""} {
		r := strings.NewReader(in)
		if err := readOK(r); err != nil {
			t.Errorf("%q: %v", in, err)
		}
		if b, _ := io.ReadAll(r); string(b) != rest {
			t.Errorf("%q: %q is left", in, b)
		}
	}
	for _, in := range []string{"", "OK 1", "NO\n", "OK" + strings.Repeat("1", 1000), "\n"} {
		if err := readOK(strings.NewReader(in)); err == nil {
			t.Errorf("%q counts as a connection", in)
		}
	}
}
