package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

const (
	schema      = 1
	maxManifest = 16 << 20
)

// manifest is the record of one directory of content.
type manifest struct {
	Schema int         `json:"schema"`
	Image  *api.Image  `json:"image,omitempty"`
	Kernel *api.Kernel `json:"kernel,omitempty"`
	Files  []fileFact  `json:"files"`
}

// fileFact is what a file was when it was published.
type fileFact struct {
	Name    string `json:"name"` // below the directory
	Size    int64  `json:"size"`
	ModTime int64  `json:"mod_time_ns"`
	SHA256  string `json:"sha256"`
}

// seal makes every file below dir read-only, brings it to disk, and returns the facts about it, sorted by name.
func seal(ctx context.Context, dir string) ([]fileFact, error) {
	var facts []fileFact
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o755) //nolint:gosec // $SMOLVM_HOME is 0700; a VMM under another uid reads by descriptor
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file", path)
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		fact, err := sealFile(ctx, path)
		fact.Name = name
		facts = append(facts, fact)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", dir, err)
	}
	slices.SortFunc(facts, func(a, b fileFact) int { return strings.Compare(a.Name, b.Name) })
	return facts, nil
}

// sealFile hashes a file while it is written to disk.
func sealFile(ctx context.Context, path string) (fileFact, error) {
	f, err := os.Open(path)
	if err != nil {
		return fileFact{}, err
	}
	defer func() { _ = f.Close() }()
	if err := f.Chmod(0o444); err != nil {
		return fileFact{}, err
	}
	var fact fileFact
	var g errgroup.Group
	g.Go(f.Sync)
	g.Go(func() (err error) { fact.SHA256, err = hashOf(ctx, path); return err })
	if err := g.Wait(); err != nil {
		return fileFact{}, err
	}
	st, err := f.Stat()
	if err != nil {
		return fileFact{}, err
	}
	fact.Size, fact.ModTime = st.Size(), st.ModTime().UnixNano()
	return fact, nil
}

// hashOf returns the SHA-256 of a file in hex.
func hashOf(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.Read(buf)
		_, _ = h.Write(buf[:n]) // a hash takes everything
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}

// readManifest reads the record in dir.
func readManifest(dir string) (manifest, error) {
	var m manifest
	f, err := os.Open(filepath.Join(dir, manifestFile))
	if err != nil {
		return m, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if m.Schema != schema {
		return m, errdefs.Image.Errorf("%s has schema %d, this SmolVM knows %d", f.Name(), m.Schema, schema).
			WithRemedy("use a newer smolvm, or remove %s", dir)
	}
	for _, fact := range m.Files {
		if !filepath.IsLocal(fact.Name) {
			return m, errdefs.Image.Errorf("%s names the file %q", f.Name(), fact.Name)
		}
	}
	return m, nil
}

// check tells whether the files in dir are what the manifest says. Size and time are looked at, and where the time
// differs (a copied home), or with full, the hash.
func (m manifest) check(ctx context.Context, dir string, full bool) error {
	for _, fact := range m.Files {
		path := filepath.Join(dir, fact.Name)
		st, err := os.Lstat(path)
		if err != nil {
			return errdefs.Image.Errorf("%s: %w", dir, err)
		}
		if !st.Mode().IsRegular() || st.Size() != fact.Size {
			return errdefs.Image.Errorf("%s is damaged: it has %d bytes, %d were written", path, st.Size(), fact.Size)
		}
		if !full && st.ModTime().UnixNano() == fact.ModTime {
			continue
		}
		sum, err := hashOf(ctx, path)
		if err != nil {
			return errdefs.Image.Errorf("read %s: %w", path, err)
		}
		if sum != fact.SHA256 {
			return errdefs.Image.Errorf("%s is damaged: its hash is %s, %s was written", path, sum, fact.SHA256)
		}
	}
	return nil
}

// digest stands for the content of all files of a manifest.
func (m manifest) digest() string {
	h := sha256.New()
	for _, f := range m.Files {
		_, _ = fmt.Fprintf(h, "%q %d %s\n", f.Name, f.Size, f.SHA256)
	}
	return hex.EncodeToString(h.Sum(nil))
}
