// Package prune finds what nobody needs any more: images and kernels that no VM was made from, and on request VMs that do
// not run; and removes it.
//
// Layer: above lifecycle, beside the fronts. It may import lifecycle, image, api, errdefs, internal/sys.
package prune

import (
	"context"
	"io/fs"
	"math"
	"path/filepath"
	"syscall"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/bootfile"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// Pruner finds and removes. Its fields are needed.
type Pruner struct {
	VMs    *lifecycle.Manager
	Images *image.Store
}

// Find lists what may go. What died half way is swept up on the way, as by every command.
func (p Pruner) Find(ctx context.Context, o api.PruneOptions) ([]api.Leftover, error) {
	boxes, err := p.VMs.List(ctx, true)
	if err != nil {
		return nil, err
	}
	var found []api.Leftover
	images, kernels := map[string]bool{}, map[string]bool{}
	for _, b := range boxes {
		if o.VMs && !b.State.Live() {
			found = append(found, api.Leftover{Kind: "vm", Name: b.ID, Why: string(b.State), Bytes: size(b.Dir)})
			continue
		}
		if b.State == api.StateBroken {
			return nil, errdefs.WrongState.Errorf("nobody can tell what the VM %s was made from: its record is broken", b.ID).WithRemedy("smolvm rm -f %s", b.ID)
		}
		images[b.ImageDigest], kernels[b.KernelID] = true, true
	}
	all, _ := p.Images.List() // what is broken stays: image rm says why
	for _, i := range all {
		if images[i.Digest] || i.Name != "" && !o.All {
			continue
		}
		l := api.Leftover{Kind: "image", Name: i.Name, Why: "no VM was made from it", Bytes: size(filepath.Dir(i.Path))}
		if i.Name == "" {
			l.Name, l.Why = i.Digest, "replaced by a newer build"
		}
		found = append(found, l)
	}
	built, err := p.built(boxes, all, o)
	if err != nil {
		return nil, err
	}
	found = append(found, built...)
	pinned, err := p.Images.LookupKernel(ctx, "")
	if err != nil && !errdefs.Is(err, errdefs.NotFound) {
		return nil, err
	}
	have, err := p.Images.Kernels(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range have {
		if k.ID != pinned.ID && !kernels[k.ID] {
			found = append(found, api.Leftover{Kind: "kernel", Name: k.ID, Why: "replaced by a newer one", Bytes: size(filepath.Dir(k.Path))})
		}
	}
	return found, nil
}

// built lists what was laid out to be named by its path, and is not.
func (p Pruner) built(boxes []api.Sandbox, images []api.Image, o api.PruneOptions) ([]api.Leftover, error) {
	all, err := bootfile.List(p.Images)
	if err != nil {
		return nil, err
	}
	used, named := map[string]bool{}, map[string]bool{}
	for _, b := range boxes {
		if !o.VMs || b.State.Live() {
			used[filepath.Base(filepath.Dir(b.Config.RootfsPath))] = b.Config.RootfsPath != ""
		}
	}
	for _, i := range images {
		named[i.Digest] = i.Name != ""
	}
	var found []api.Leftover
	for _, b := range all {
		l := api.Leftover{Kind: "built", Name: b.Name, Why: "no VM was made from it", Bytes: own(b.Dir)}
		switch {
		case used[b.Name]:
			continue
		case !named[b.Image]:
			l.Why = "its image was replaced or removed, and no VM was made from it"
		case !o.All:
			continue
		}
		found = append(found, l)
	}
	return found, nil
}

// size is what a directory takes on the disk, own what of that goes with it: files that lie elsewhere too do not.
func size(dir string) int64 { return measure(dir, math.MaxUint64) }
func own(dir string) int64  { return measure(dir, 1) }

func measure(dir string, names uint64) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it went meanwhile
		}
		if st, err := e.Info(); err == nil {
			if sys, ok := st.Sys().(*syscall.Stat_t); ok && (e.IsDir() || uint64(sys.Nlink) <= names) { //nolint:unconvert // not on every machine
				total += sys.Blocks * 512
			}
		}
		return nil
	})
	return total
}

// Remove removes one of the things found. What is used again by now is refused.
func (p Pruner) Remove(ctx context.Context, l api.Leftover) error {
	switch l.Kind {
	case "vm":
		return p.VMs.Remove(ctx, l.Name, l.Why == string(api.StateBroken))
	case "image":
		return p.Images.Remove(ctx, l.Name)
	case "built":
		return p.Images.RemoveBuilt(ctx, l.Name)
	case "kernel":
		return p.Images.RemoveKernel(ctx, l.Name)
	}
	return errdefs.Invalid.Errorf("prune: there is no kind %q", l.Kind)
}
