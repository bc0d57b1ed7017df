package plainfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpen: only a regular file that lies where its path says is opened, and nothing blocks.
func TestOpen(t *testing.T) {
	dir, err := Resolve(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(at("file"), []byte("text"), 0o600), os.Symlink("file", at("link")), os.Symlink(dir, at("way")), unix.Mkfifo(at("pipe"), 0o600),
		os.Symlink("loop", at("loop")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := Open(at("file"), os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	for _, name := range []string{"link", "way/file", "nothing", "loop", "file/x"} {
		if f, err := Open(at(name), os.O_RDONLY); err == nil {
			t.Errorf("%s was opened as %s", name, f.Name())
		}
	}
	for _, path := range []string{dir, at("pipe"), "/dev/null"} {
		if _, err := Open(path, os.O_RDONLY); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, name := range []string{"link", "way/file", "way/way/link"} {
		if path, err := Resolve(at(name)); err != nil || path != at("file") {
			t.Errorf("%s is %s, %v", name, path, err)
		}
	}
	if _, err := Resolve(at("loop")); err == nil {
		t.Error("a loop was resolved")
	}
}
