package token

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLife: made once, kept, rotated, also for who uses it meanwhile.
func TestLife(t *testing.T) {
	path := Path(t.TempDir())
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("where there is none: %v", err)
	}
	one, err := Ensure(path)
	if err != nil || len(one) < 50 {
		t.Fatalf("%q, %v", one, err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if dir, err := os.Stat(filepath.Dir(path)); err != nil || dir.Mode().Perm() != 0o700 {
		t.Errorf("its directory: %v, %v", dir.Mode(), err)
	}
	f := &File{Path: path}
	for range 2 {
		if got, err := f.Token(); err != nil || got != one {
			t.Errorf("%q, %v", got, err)
		}
	}
	if again, err := Ensure(path); err != nil || again != one {
		t.Errorf("another one: %q, %v", again, err)
	}
	two, err := Rotate(path)
	if err != nil || two == one {
		t.Fatalf("%q, %v", two, err)
	}
	if got, err := f.Token(); err != nil || got != two {
		t.Errorf("after it was rotated: %q, %v", got, err)
	}
}

// TestNotOurs: what others may read, and what is no token, is none.
func TestNotOurs(t *testing.T) {
	for name, f := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"readable": {strings.Repeat("a", 52), 0o644},
		"short":    {"secret", 0o600},
		"words":    {strings.Repeat("a b ", 20), 0o600},
		"empty":    {"", 0o600},
	} {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(f.text), f.mode); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
	if _, err := Ensure(t.TempDir()); err == nil {
		t.Error("a directory")
	}
}
