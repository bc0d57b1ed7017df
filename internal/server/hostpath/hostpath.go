// Package hostpath decides which files of this host a request over TCP may name: none, except regular files below directories
// that the server was started with.
//
// Layer: part of the front server. It may import errdefs.
package hostpath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// Allowed are the directories. The zero value allows nothing.
type Allowed struct{ dirs []string }

// Below returns what is below directories, which must be there.
func Below(dirs []string) (Allowed, error) {
	var a Allowed
	for _, dir := range dirs {
		abs, err := filepath.Abs(dir)
		if err == nil {
			abs, err = filepath.EvalSymlinks(abs)
		}
		if err != nil {
			return a, errdefs.Invalid.Errorf("allow path %q: %w", dir, err)
		}
		if st, err := os.Stat(abs); err != nil || !st.IsDir() {
			return a, errdefs.Invalid.Errorf("allow path %q: it is no directory", dir)
		}
		if abs == "/" {
			return a, errdefs.Invalid.Errorf("allow path %q: that is every file of this host", dir).WithRemedy("name the directory where the files are")
		}
		a.dirs = append(a.dirs, abs)
	}
	return a, nil
}

// Check returns the path of a file that may be named, without links in it, so that a link which is turned afterwards leads
// nowhere else. What lies elsewhere is refused in the same words whether it is there or not.
func (a Allowed) Check(path string) (string, error) {
	denied := errdefs.Denied.Errorf("%q: who asks over TCP names no such file of the server's host", path).
		WithRemedy("name an image of the server's, or start it with --allow-path")
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0) {
		return "", denied
	}
	for _, dir := range a.dirs {
		rel, err := filepath.Rel(dir, path)
		if err != nil || !filepath.IsLocal(rel) || rel == "." {
			continue
		}
		real, err := below(dir, rel)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", errdefs.NotFound.Errorf("%q is not there", path)
		case err != nil:
			return "", denied
		}
		return real, nil
	}
	return "", denied
}

// below looks at a file through its directory, which no name and no link leads out of.
func below(dir, rel string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	st, err := root.Stat(rel)
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", errors.New("no regular file")
	}
	real, err := filepath.EvalSymlinks(filepath.Join(dir, rel))
	if err != nil {
		return "", err
	}
	inside, err := filepath.Rel(dir, real)
	if err != nil || !filepath.IsLocal(inside) {
		return "", errors.New("it leads out")
	}
	if again, err := root.Lstat(inside); err != nil || !os.SameFile(st, again) {
		return "", errors.New("it changed meanwhile")
	}
	return real, nil
}
