// Package token keeps the secret that clients of this user's server show.
//
// Layer: leaf. It imports none of ours.
package token

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// Path is where it lies below $SMOLVM_HOME.
func Path(home string) string { return filepath.Join(home, "serve", "token") }

// longest is the most that is read of a file that may be anything.
const longest = 4096

// Ensure returns the token at path, and makes one where there is none.
func Ensure(path string) (string, error) {
	t, err := Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Rotate(path)
	}
	return t, err
}

// Rotate makes another one. What had the old one is refused from then on.
func Rotate(path string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("make the token's directory: %w", err)
	}
	t := rand.Text() + rand.Text()
	if err := renameio.WriteFile(path, []byte(t+"\n"), 0o600, renameio.WithStaticPermissions(0o600)); err != nil {
		return "", fmt.Errorf("write the token: %w", err)
	}
	return t, nil
}

// Read returns the token at path. One that others may read, or that is none, is an error.
func Read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("read the token: %s is no file that only its owner may read (%s)", path, st.Mode())
	}
	b := make([]byte, min(st.Size(), longest))
	n, err := f.Read(b)
	if err != nil && n == 0 {
		return "", fmt.Errorf("read the token: %w", err)
	}
	t := strings.TrimSpace(string(b[:n]))
	if len(t) < 32 || strings.ContainsAny(t, " \t\r\n") {
		return "", fmt.Errorf("read the token: %s has fewer than 32 characters, or several words", path)
	}
	return t, nil
}

// File is a token that may be rotated while it is used.
type File struct {
	Path string

	mu   sync.Mutex
	at   time.Time
	size int64
	text string
}

// Token returns it as it is now.
func (f *File) Token() (string, error) {
	st, err := os.Lstat(f.Path)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.text != "" && st.ModTime().Equal(f.at) && st.Size() == f.size {
		return f.text, nil
	}
	t, err := Read(f.Path)
	if err != nil {
		return "", err
	}
	f.text, f.at, f.size = t, st.ModTime(), st.Size()
	return t, nil
}
