package bootfile

import (
	"context"
	"os"
	"path/filepath"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/sys/bootargs"
)

// Source is what a VM boots from, as its record keeps it.
type Source struct {
	// ImageDigest and KernelID name content of the cache; "" where a file was named that is none of it.
	ImageDigest string `json:"image_digest"`
	KernelID    string `json:"kernel_id"`
	// RootfsMark and KernelMark tell a file that was named by its path from what is there instead later.
	RootfsMark string `json:"rootfs_mark,omitempty"`
	KernelMark string `json:"kernel_mark,omitempty"`
}

// Resolve looks at the files that cfg names by their paths, before anything is made, and returns cfg with their places, and
// with what is said beside a root file system; defaults come after it. Privileged says that monitors run as somebody else
// than us, who opens the kernel again.
func Resolve(cfg api.Config, privileged bool) (api.Config, Source, error) {
	var src Source
	if _, err := bootargs.Clean(cfg.BootArgs); err != nil {
		return cfg, src, errdefs.Invalid.Errorf("boot args: %w", err)
	}
	if err := CheckKeys(cfg.AuthorizedKeys); err != nil {
		return cfg, src, err
	}
	if cfg.RootfsPath != "" {
		f, err := look("rootfs path", cfg.RootfsPath, checkExt4)
		if err != nil {
			return cfg, src, err
		}
		said, err := readFacts(f.path)
		if err != nil {
			return cfg, src, err
		}
		cfg.RootfsPath, src.RootfsMark = f.path, f.mark
		if cfg.DiskMiB == 0 {
			cfg.DiskMiB = said.DiskMiB
		}
		cfg.AuthorizedKeys = join(cfg.AuthorizedKeys, said.AuthorizedKeys)
	}
	if cfg.KernelPath != "" {
		f, err := look("kernel path", cfg.KernelPath, checkKernel)
		if err != nil {
			return cfg, src, err
		}
		if privileged && f.mode&0o004 == 0 {
			return cfg, src, errdefs.Denied.Errorf("kernel path: the monitor, which runs as a user of its own, may not read %s", f.path).WithRemedy("chmod o+r %s", f.path)
		}
		cfg.KernelPath, src.KernelMark = f.path, f.mark
	}
	return cfg, src, nil
}

// join returns a and what b has more.
func join(a, b []string) []string {
	seen := map[string]bool{}
	var all []string
	for _, list := range [][]string{a, b} {
		for _, line := range list {
			if !seen[line] {
				all = append(all, line)
			}
			seen[line] = true
		}
	}
	return all
}

// Ensure finds in the cache what cfg, which Resolve returned with src, boots from, and makes what is absent. Files that are
// those of the cache, by whatever path, count as them.
func Ensure(ctx context.Context, images *image.Store, cfg api.Config, src Source, progress api.ProgressFunc) (Source, error) {
	if cfg.RootfsPath != "" {
		src.ImageDigest = imageOf(images, cfg.RootfsPath)
	} else {
		img, err := images.Ensure(ctx, cfg.Image, image.EnsureOptions{Progress: progress})
		if err != nil {
			return src, err
		}
		src.ImageDigest = img.Digest
	}
	if cfg.KernelPath != "" {
		src.KernelID = kernelOf(ctx, images, cfg.KernelPath)
		return src, nil
	}
	kernel, err := images.EnsureKernel(ctx, false, progress)
	src.KernelID = kernel.ID
	return src, err
}

// imageOf is the digest of the image whose file lies at path too; "" when it is none.
func imageOf(images *image.Store, path string) string {
	said, _ := readFacts(path)
	for _, digest := range []string{said.Image, "sha256:" + filepath.Base(filepath.Dir(path))} {
		if img, err := images.Lookup(digest); err == nil && same(img.Path, path) && digest == img.Digest {
			return digest
		}
	}
	return ""
}

// kernelOf is the id of the kernel whose file lies at path too; "" when it is none.
func kernelOf(ctx context.Context, images *image.Store, path string) string {
	k, err := images.LookupKernel(ctx, filepath.Base(filepath.Dir(path)))
	if err != nil || !same(k.Path, path) {
		return ""
	}
	return k.ID
}

func same(a, b string) bool {
	sa, aerr := os.Stat(a)
	sb, berr := os.Stat(b)
	return aerr == nil && berr == nil && os.SameFile(sa, sb)
}

// Boot is what a VM boots from, found and held.
type Boot struct {
	image.BootFiles // Modules is "" for a kernel that is none of ours

	Rootfs string
	// KernelName stands for the kernel where it matters whether one ran before.
	KernelName string
	Lease      image.Lease
}

// Prepare finds what a VM boots from and keeps it from being removed. Fresh says that it never ran: then its disk goes with any
// root file system, and files that have changed since are taken as they are now.
func Prepare(ctx context.Context, images *image.Store, cfg api.Config, src Source, fresh bool, agent []byte) (b Boot, err error) {
	held := image.Held{Kernel: src.KernelID, Image: src.ImageDigest}
	if cfg.RootfsPath == "" {
		img, err := images.Lookup(src.ImageDigest)
		if err != nil {
			return b, err
		}
		b.Rootfs = img.Path
	} else {
		if b.Rootfs, err = again("root file system", cfg.RootfsPath, src.RootfsMark, fresh, checkExt4); err != nil {
			return b, err
		}
		held.Built = builtOf(images, b.Rootfs)
		if _, err := images.Lookup(src.ImageDigest); err != nil {
			held.Image = "" // it went; the file has stayed
		}
	}
	kernel := ""
	if src.KernelID != "" {
		if _, err := images.LookupKernel(ctx, src.KernelID); err != nil {
			return b, err
		}
	} else if kernel, err = again("kernel", cfg.KernelPath, src.KernelMark, true, checkKernel); err != nil {
		return b, err
	}
	if b.Lease, err = images.Hold(held); err != nil {
		return b, err
	}
	if b.BootFiles, err = images.BootFiles(ctx, api.Kernel{ID: src.KernelID}, agent); err != nil {
		_ = b.Lease.Close()
		return b, err
	}
	b.KernelName = src.KernelID
	if src.KernelID == "" {
		b.Kernel, b.KernelName = kernel, "file-"+src.KernelMark
	}
	return b, nil
}

// again looks at a file as when the VM was made. A root file system that has changed does not go with the disk any more, which
// holds what differs from it.
func again(what, path, mark string, changed bool, check checker) (string, error) {
	f, err := look("the VM's "+what, path, check)
	switch {
	case err != nil:
		return "", err
	case f.path != path:
		return "", errdefs.Image.Errorf("the VM's %s: %s leads to %s now", what, path, f.path).WithRemedy("put the file back where it was")
	case f.mark != mark && !changed:
		return "", errdefs.Image.Errorf("the VM's %s: %s has changed since the VM was made: its disk does not go with it any more", what, path).
			WithRemedy("put the former file back, or make another VM from this one: smolvm create --rootfs %s", path)
	}
	return f.path, nil
}

// builtOf is the directory of Build's in which path lies, by its name.
func builtOf(images *image.Store, path string) string {
	dir := filepath.Dir(path)
	if built, err := filepath.EvalSymlinks(images.BuiltDir()); err != nil || filepath.Dir(dir) != built {
		return ""
	}
	return filepath.Base(dir)
}
