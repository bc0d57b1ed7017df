package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/lock"
)

// List returns the images in the cache, one entry per name, and one without a name for what a newer build has replaced.
// Broken ones are left out and told in the second value.
func (s *Store) List() ([]api.Image, []error) {
	var images []api.Image
	var broken []error
	named := map[string]bool{}
	for _, name := range s.names() {
		img, err := s.Lookup(name)
		if err != nil {
			broken = append(broken, fmt.Errorf("image %s: %w", name, err))
			continue
		}
		named[img.Digest] = true
		images = append(images, img)
	}
	entries, err := os.ReadDir(s.imagesDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		broken = append(broken, cacheError("read the cache", err))
	}
	for _, e := range entries {
		digest := "sha256:" + e.Name()
		if !digestRule.MatchString(digest) || named[digest] {
			continue
		}
		img, err := s.Lookup(digest)
		if err != nil {
			broken = append(broken, err)
			continue
		}
		img.Name = ""
		images = append(images, img)
	}
	slices.SortFunc(images, func(a, b api.Image) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.CreatedAt.Compare(b.CreatedAt))
	})
	return images, broken
}

// names lists the names in the cache, valid ones only.
func (s *Store) names() []string {
	entries, err := os.ReadDir(s.namesDir())
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		if nameRule.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// Verify reads an image, by name or digest, to its end and compares it with what was built.
func (s *Store) Verify(ctx context.Context, name string) error {
	digest, err := s.resolve(name)
	if err != nil {
		return err
	}
	_, m, err := s.read(digest)
	if err != nil {
		return err
	}
	if err := m.check(ctx, s.imageDir(hexOf(digest)), true); err != nil {
		return s.damaged(name, err)
	}
	return nil
}

// VerifyKernel does so with a kernel; "" means the pinned one.
func (s *Store) VerifyKernel(ctx context.Context, id string) error {
	k, err := s.LookupKernel(ctx, id)
	if err != nil {
		return err
	}
	dir := filepath.Dir(k.Path)
	m, err := readManifest(dir)
	if err != nil {
		return err
	}
	if err := m.check(ctx, dir, true); err != nil {
		return errdefs.Image.Errorf("kernel %s: %w", k.ID, err).WithRemedy("smolvm image build --refresh")
	}
	return nil
}

// Remove deletes an image that no VM holds, by name or digest. Another name for the same content keeps the content.
func (s *Store) Remove(ctx context.Context, name string) error {
	unlock, err := s.lockBuild(ctx, "image", nil) // a build could be about to publish the same
	if err != nil {
		return err
	}
	defer unlock()
	digest, err := s.resolve(name)
	if errdefs.Is(err, errdefs.Image) { // a broken name leads nowhere
		return os.Remove(filepath.Join(s.namesDir(), name))
	}
	if err != nil {
		return err
	}
	dir := s.imageDir(hexOf(digest))
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) && name == digest {
		return errdefs.NotFound.Errorf("image %s is not in the cache", digest).WithRemedy("smolvm image ls")
	}
	var mine, others []string
	for _, n := range s.names() {
		if d, err := s.resolve(n); err == nil && d == digest {
			if n == name || name == digest {
				mine = append(mine, n)
			} else {
				others = append(others, n)
			}
		}
	}
	if len(others) == 0 {
		if err := s.removeContent(digest); err != nil {
			return err
		}
	}
	for _, n := range mine {
		if err := os.Remove(filepath.Join(s.namesDir(), n)); err != nil {
			return errdefs.Host.Errorf("remove the image name %s: %w", n, err)
		}
	}
	return nil
}

// removeContent deletes an image's content.
func (s *Store) removeContent(digest string) error {
	hex := hexOf(digest)
	return s.removeHeld(imageLock(digest), "image "+digest, s.imageDir(hex), filepath.Join(s.imagesDir(), tempPrefix+"rm-"+hex))
}

// removeHeld deletes a directory of content unless somebody holds its lock. It leaves its place in one step, so that a
// crash on the way shows no half of it.
func (s *Store) removeHeld(lockName, what, dir, aside string) error {
	l, err := lock.Try(s.lockFile(lockName))
	if errors.Is(err, lock.ErrHeld) {
		return errdefs.WrongState.Errorf("%s is in use by a running VM", what).WithRemedy("smolvm ls")
	}
	if err != nil {
		return errdefs.Host.Errorf("lock the %s: %w", what, err)
	}
	defer func() { _ = l.Close() }()
	err = os.Rename(dir, aside)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errdefs.Host.Errorf("remove the %s: %w", what, err)
	}
	if err := os.RemoveAll(aside); err != nil {
		return errdefs.Host.Errorf("remove the %s: %w", what, err)
	}
	return nil
}

// Kernels lists the kernels in the cache. Broken ones are left out.
func (s *Store) Kernels(ctx context.Context) ([]api.Kernel, error) {
	entries, err := os.ReadDir(s.kernelsDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, cacheError("read the cache", err)
	}
	var kernels []api.Kernel
	for _, e := range entries {
		if !e.IsDir() || !kernelRule.MatchString(e.Name()) {
			continue
		}
		if k, err := s.LookupKernel(ctx, e.Name()); err == nil {
			kernels = append(kernels, k)
		}
	}
	return kernels, nil
}

// RemoveKernel deletes a kernel that no VM holds. The one that new VMs get stays.
func (s *Store) RemoveKernel(ctx context.Context, id string) error {
	unlock, err := s.lockBuild(ctx, "kernel", nil)
	if err != nil {
		return err
	}
	defer unlock()
	k, err := s.LookupKernel(ctx, id)
	if err != nil {
		return err
	}
	if pinned, err := s.pinnedKernel(ctx); err == nil && pinned.ID == id {
		return errdefs.WrongState.Errorf("kernel %s is the one that new VMs get", id)
	}
	return s.removeHeld(kernelLock(id), "kernel "+id, filepath.Dir(k.Path), filepath.Join(s.kernelsDir(), tempPrefix+"rm-"+id))
}
