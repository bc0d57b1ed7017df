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
	// Scratch is a directory on disk in which a builder may make directories, for what does not fit into memory. What a
	// killed build left there, its next one removes: only one build at a time has it.
	Scratch string
}

// Facts are what a builder knows of what it built.
type Facts struct {
	Source   string
	Packages []api.Package
	Include  []string // those that were asked for
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

// BootFiles are the files that a VM boots from, by path. All are 0444.
type BootFiles struct{ Kernel, Initrd, Modules string }
