package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/figure"
	"github.com/smolvm/smolvm/internal/bench/tree"
	"github.com/smolvm/smolvm/internal/image"
)

// runImage turns one tree, as a saved tar, into a published image, in turn with mke2fs reading the tree itself.
func runImage(ctx context.Context, o *Options) ([]api.Figure, error) {
	mke2fs, err := exec.LookPath("mke2fs")
	if err != nil {
		return nil, errdefs.Host.Errorf("mke2fs is what the image suite compares with: %w", err).WithRemedy("apt-get install e2fsprogs")
	}
	dir, err := os.MkdirTemp(o.TempDir, "smolvm-bench-")
	if err != nil {
		return nil, errdefs.Host.Errorf("a directory for the image suite: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	o.tell("image", "make a tree of %d files", tree.Files)
	root, saved := filepath.Join(dir, "tree"), filepath.Join(dir, "tree.tar")
	if err := tree.Make(root); err != nil {
		return nil, errdefs.Host.Errorf("make a tree: %w", err)
	}
	if err := tree.Save(root, saved); err != nil {
		return nil, errdefs.Host.Errorf("save the tree as a tar: %w", err)
	}
	var p figure.Pairs
	for i := range o.runs(5) + 1 {
		o.tell("image", "pair %d", i)
		ours, err := importTar(ctx, o, saved, filepath.Join(dir, fmt.Sprint("home", i)))
		if err != nil {
			return nil, err
		}
		theirs, err := runMke2fs(ctx, mke2fs, root, filepath.Join(dir, "mke2fs.ext4"))
		if err != nil {
			return nil, err
		}
		if i > 0 {
			p.Add(ours, theirs)
		}
	}
	return p.Figures("tar to a published image / mke2fs -d", figure.AtMost(1), "tar to a published image", "mke2fs -d", "s"), nil
}

func importTar(ctx context.Context, o *Options, saved, home string) (float64, error) {
	defer func() { _ = os.RemoveAll(home) }()
	f, err := os.Open(saved) //nolint:gosec // our own file
	if err != nil {
		return 0, errdefs.Host.Errorf("the saved tar: %w", err)
	}
	defer func() { _ = f.Close() }()
	t0 := time.Now()
	_, err = image.New(image.Options{Home: home, Log: o.Log}).Import(ctx, "bench", f, image.Facts{}, "bench")
	return time.Since(t0).Seconds(), err
}

func runMke2fs(ctx context.Context, mke2fs, root, out string) (float64, error) {
	defer func() { _ = os.Remove(out) }()
	t0 := time.Now()
	cmd := exec.CommandContext(ctx, mke2fs, "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", root, out, "512M") //nolint:gosec // fixed arguments
	if msg, err := cmd.CombinedOutput(); err != nil {
		return 0, errdefs.Host.Errorf("mke2fs: %w: %.500s", err, msg)
	}
	f, err := os.OpenFile(out, os.O_RDWR, 0) //nolint:gosec // our own file
	if err == nil {
		err = f.Sync()
		_ = f.Close()
	}
	return time.Since(t0).Seconds(), err
}
