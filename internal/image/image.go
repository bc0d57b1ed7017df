// Package image makes, keeps and verifies what a VM boots from: root file systems, kernels with their modules,
// initramfs, and the empty disk. Everything is content-addressed below $SMOLVM_HOME/{images,kernels}, published by
// rename, and made once however many processes want it. Builders live in folders below.
//
// Layer: below lifecycle. It may import api, errdefs, internal/sys.
package image

import (
	"context"
	"io"
	"log/slog"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// Builder gives a root file system as a tar, and the facts about it.
type Builder interface {
	// Name is the builder's stable name, "debian".
	Name() string
	// Build writes the tar to w. On error nothing is left of what it made on the way.
	Build(ctx context.Context, req BuildRequest, w io.Writer) (Facts, error)
}

// BuildRequest says what to build.
type BuildRequest struct {
	Include  []string // packages over the default ones
	Progress api.ProgressFunc
}

// Facts are what a builder knows of what it built.
type Facts struct {
	Source   string
	Packages []api.Package
}

// KernelSource fetches a guest kernel.
type KernelSource interface {
	// Fetch puts vmlinux, modules.ext4 and the module files that an initramfs needs into dir.
	Fetch(ctx context.Context, dir string, progress api.ProgressFunc) (api.Kernel, error)
}

// Options are what a Store works with.
type Options struct {
	Home     string
	Builders []Builder
	Kernels  KernelSource
	Version  string // recorded in what is built
	Log      *slog.Logger
}

// Store is the cache of images and kernels.
type Store struct{ opts Options }

// New returns the store below opts.Home, which is made when it is first written to.
func New(opts Options) *Store {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{opts: opts}
}

// EnsureOptions say how an image is made when it is absent.
type EnsureOptions struct {
	Refresh  bool     // make the newest even if there is one
	Include  []string // packages over the default ones (with a name of its own)
	Progress api.ProgressFunc
}

var errTODO = errdefs.Internal.Errorf("not built yet")

// Ensure returns the image called name, made by its builder when it is absent. Two processes that want it build it once.
func (s *Store) Ensure(ctx context.Context, name string, o EnsureOptions) (api.Image, error) {
	return api.Image{}, errTODO
}

// Lookup returns the image called name, or with the digest name, without building it.
func (s *Store) Lookup(name string) (api.Image, error) { return api.Image{}, errTODO }

// List returns the images in the cache. Broken ones are left out and told in the second value.
func (s *Store) List() ([]api.Image, []error) { return nil, nil }

// Inspect is Lookup with the SBOM.
func (s *Store) Inspect(name string) (api.Image, error) { return api.Image{}, errTODO }

// Remove deletes an image that no VM holds.
func (s *Store) Remove(ctx context.Context, name string) error { return errTODO }

// BootFiles are the files that a VM boots from, by path. All are 0444.
type BootFiles struct{ Kernel, Initrd, Modules string }
