// Package tree makes a tree of files with the size and the mix of a small Debian: many small files, some large ones.
//
// Layer: below bench.
package tree

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

const (
	dirs  = 1000
	files = 10000
	large = 40
)

// Files is how many files it has.
const Files = files + large

// Make makes it below root, the same each time.
func Make(root string) error {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same tree each time
	noise := make([]byte, 4<<20)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for i := range dirs {
		if err := os.MkdirAll(filepath.Join(root, fmt.Sprintf("%d/%d", i%30, i)), 0o750); err != nil {
			return err
		}
	}
	for i := range files + large {
		size := int(r.ExpFloat64() * 8192)
		if i >= files {
			size = 1<<20 + r.IntN(3<<20)
		}
		d := i % dirs
		name := filepath.Join(root, fmt.Sprintf("%d/%d/file%d", d%30, d, i))
		if err := os.WriteFile(name, noise[:min(size, len(noise))], 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Save saves it as a tar.
func Save(root, out string) error {
	f, err := os.Create(out) //nolint:gosec,forbidigo // our own temporary file
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	w := tar.NewWriter(f)
	if err := w.AddFS(os.DirFS(root)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}
