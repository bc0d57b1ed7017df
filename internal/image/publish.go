package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/smolvm/smolvm/errdefs"
)

// publish makes the finished directory temp the content at dest. If the same content is there already and whole, that
// stays and temp is left for the caller to remove; a damaged one is replaced.
func (m manifest) publish(ctx context.Context, temp, dest string) error {
	b, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(temp, manifestFile), append(b, '\n'), 0o444, renameio.IgnoreUmask()); err != nil {
		return err
	}
	if err := syncDirs(temp); err != nil {
		return err
	}
	if old, err := readManifest(dest); err == nil && old.check(ctx, dest, true) == nil {
		return nil
	}
	if _, err := os.Lstat(dest); err == nil {
		// Whoever runs from the damaged files has them open; they go when it ends.
		aside := filepath.Join(filepath.Dir(dest), tempPrefix+"old-"+filepath.Base(temp))
		if err := os.Rename(dest, aside); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(aside) }()
	}
	if err := os.Rename(temp, dest); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dest))
}

// syncDirs brings the entries of dir and of the directories in it to disk.
func syncDirs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := syncDir(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

// tempDir makes a directory for content that is being made below parent, after removing those that a killed process
// left. The caller holds the build lock of parent, so none of them is alive.
func tempDir(parent string) (string, error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", cacheError("make the cache", err)
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return "", cacheError("read the cache", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.RemoveAll(filepath.Join(parent, e.Name())); err != nil {
				return "", cacheError("remove what an earlier build left", err)
			}
		}
	}
	dir, err := os.MkdirTemp(parent, tempPrefix)
	if err != nil {
		return "", cacheError("make a directory in the cache", err)
	}
	return dir, nil
}

// wrap gives an unclassified failure while making content its class.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*errdefs.Error](err); ok || errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if noSpace(err) {
		return errdefs.Exhausted.Errorf("%s: %w", what, err).WithRemedy("df -h")
	}
	if errors.Is(err, fs.ErrPermission) {
		return errdefs.Host.Errorf("%s: %w", what, err).WithRemedy(shut)
	}
	return errdefs.Image.Errorf("%s: %w", what, err)
}

// shut is what helps where files of ours cannot be read or written.
const shut = "smolvm doctor; another place is chosen by smolvm --home DIR, or SMOLVM_HOME"

// cacheError is a failure to read or write our own files.
func cacheError(what string, err error) error {
	if noSpace(err) {
		return errdefs.Exhausted.Errorf("%s: %w", what, err).WithRemedy("make room: smolvm prune, df -h")
	}
	return errdefs.Host.Errorf("%s: %w", what, err).WithRemedy(shut)
}
