package bootfile

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image"
)

const (
	// DefaultName is what an image for SSH is called that nobody named.
	DefaultName = "debian-ssh-key"

	rootfsFile = "rootfs.ext4"
	newPrefix  = ".new-"
)

// Build lays out the default image for logins with a key, and returns where it and our kernel are. It takes no room of its own, and
// makes nothing but the default image and the kernel where they are absent. The same request gives the same paths.
func Build(ctx context.Context, images *image.Store, r api.SSHImageRequest, progress api.ProgressFunc) (api.SSHImage, error) {
	r.Name, r.SSHPublicKey = cmp.Or(r.Name, DefaultName), strings.TrimSpace(r.SSHPublicKey)
	r.RootfsSizeMiB = cmp.Or(r.RootfsSizeMiB, api.DefaultDiskMiB)
	if err := image.CheckName(r.Name); err != nil {
		return api.SSHImage{}, err
	}
	if n := r.RootfsSizeMiB; n < api.MinDiskMiB || n > api.MaxDiskMiB {
		return api.SSHImage{}, errdefs.Invalid.Errorf("rootfs size: %d MiB is not within %d to %d MiB", n, api.MinDiskMiB, api.MaxDiskMiB)
	}
	if err := CheckKeys([]string{r.SSHPublicKey}); err != nil {
		return api.SSHImage{}, err
	}
	img, err := images.Ensure(ctx, api.DefaultImage, image.EnsureOptions{Progress: progress})
	if err != nil {
		return api.SSHImage{}, err
	}
	kernel, err := images.EnsureKernel(ctx, false, progress)
	if err != nil {
		return api.SSHImage{}, err
	}
	unlock, err := images.LockBuilt(ctx, progress)
	if err != nil {
		return api.SSHImage{}, err
	}
	defer unlock()
	lease, err := images.Hold(image.Held{Image: img.Digest})
	if err != nil {
		return api.SSHImage{}, err
	}
	defer func() { _ = lease.Close() }()
	sum := sha256.Sum256([]byte(fmt.Sprintf("%s\n%s\n%d\n", img.Digest, r.SSHPublicKey, r.RootfsSizeMiB)))
	dir := filepath.Join(images.BuiltDir(), r.Name+"-"+hex.EncodeToString(sum[:8]))
	out := api.SSHImage{KernelPath: kernel.Path, RootfsPath: filepath.Join(dir, rootfsFile)}
	want := facts{Schema: factsSchema, Image: img.Digest, DiskMiB: r.RootfsSizeMiB, AuthorizedKeys: []string{r.SSHPublicKey}, CreatedAt: time.Now().UTC()}
	if isBuilt(out.RootfsPath, img, want) {
		return out, nil
	}
	return out, hostError(layOut(dir, img.Path, want))
}

// isBuilt reports whether what is wanted is there, whole.
func isBuilt(rootfs string, img api.Image, want facts) bool {
	have, err := readFacts(rootfs)
	if err != nil || have.Image != want.Image || have.DiskMiB != want.DiskMiB || len(have.AuthorizedKeys) != 1 || have.AuthorizedKeys[0] != want.AuthorizedKeys[0] {
		return false
	}
	if same(rootfs, img.Path) {
		return true
	}
	st, err := os.Lstat(rootfs)
	return err == nil && st.Mode().IsRegular() && st.Size() == img.SizeBytes && st.Mode().Perm() == 0o444 && !onOneDevice(rootfs, img.Path)
}

func onOneDevice(a, b string) bool {
	var sa, sb unix.Stat_t
	return unix.Stat(a, &sa) == nil && unix.Stat(b, &sb) == nil && sa.Dev == sb.Dev
}

// layOut makes the directory dir, in one step, in place of what is damaged there. The caller holds the lock of all such.
func layOut(dir, rootfs string, f facts) error {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(parent, newPrefix+"*")) // of those that were killed
	if err != nil {
		return err
	}
	for _, l := range left {
		if err := os.RemoveAll(l); err != nil {
			return err
		}
	}
	temp, err := os.MkdirTemp(parent, newPrefix)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	if err := os.Chmod(temp, 0o755); err != nil { //nolint:gosec // $SMOLVM_HOME is 0700
		return err
	}
	if err := link(rootfs, filepath.Join(temp, rootfsFile)); err != nil {
		return err
	}
	b, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		return err
	}
	if err := save(filepath.Join(temp, FactsFile), func(to *os.File) error { _, err := io.Copy(to, bytes.NewReader(b)); return err }); err != nil {
		return err
	}
	if _, err := os.Lstat(dir); err == nil {
		// Whoever runs from it has it open.
		aside := temp + "-old"
		if err := os.Rename(dir, aside); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(aside) }()
	}
	return os.Rename(temp, dir)
}

// link gives a file another name, or makes a copy where that is on another file system.
func link(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	src, err := os.Open(from) //nolint:gosec // a file of the cache
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	return save(to, func(dst *os.File) error {
		if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
			return nil
		}
		_, err := io.Copy(dst, src)
		return err
	})
}

// save makes a file that is not written to again.
func save(path string, write func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the caller's own
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = errors.Join(f.Chmod(0o444), f.Sync())
	}
	return errors.Join(err, f.Close())
}

func hostError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return errdefs.Exhausted.Errorf("lay out an image: %w", err).WithRemedy("make room: smolvm prune, df -h")
	}
	return errdefs.Host.Errorf("lay out an image: %w", err).WithRemedy("smolvm doctor; another place is chosen by smolvm --home DIR, or SMOLVM_HOME")
}

// Built is an image that Build laid out.
type Built struct {
	Name  string // of its directory
	Dir   string
	Image string // the digest of what it was made of
}

// List returns what Build has laid out.
func List(images *image.Store) ([]Built, error) {
	entries, err := os.ReadDir(images.BuiltDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, hostError(err)
	}
	var all []Built
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), newPrefix) {
			continue
		}
		b := Built{Name: e.Name(), Dir: filepath.Join(images.BuiltDir(), e.Name())}
		if f, err := readFacts(filepath.Join(b.Dir, rootfsFile)); err == nil {
			b.Image = f.Image
		}
		all = append(all, b)
	}
	return all, nil
}
