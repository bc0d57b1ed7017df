// Package kernel fetches the guest's kernel: Debian's signed cloud kernel package, taken apart into the ELF kernel that
// a VMM boots, a read-only file system of its modules, and the few modules that an initramfs needs.
//
// Layer: below cmd (internal/wire). It may import api, errdefs, image, image/apt, image/ext4.
package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/apt"
	"github.com/smolvm/smolvm/internal/image/ext4"
)

const (
	metaPackage = "linux-image-cloud-"
	maxModuleFS = 1 << 30
	maxDeb      = 1 << 30
)

// Source is Debian's archive as a source of kernels.
type Source struct {
	Archive apt.Archive
	Log     *slog.Logger
}

var _ image.KernelSource = Source{}

// Fetch implements image.KernelSource: it takes the newest kernel of the archive.
func (s Source) Fetch(ctx context.Context, dir string, progress api.ProgressFunc) (api.Kernel, error) {
	if runtime.GOARCH != "amd64" {
		return api.Kernel{}, errdefs.Host.Errorf("guest kernels for %s are not supported yet", runtime.GOARCH)
	}
	work := filepath.Join(dir, ".work")
	if err := os.Mkdir(work, 0o700); err != nil {
		return api.Kernel{}, fmt.Errorf("fetch a kernel: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	f := &fetch{Source: s, dir: dir, work: work, progress: progress}
	rec, deb, err := f.download(ctx)
	if err != nil {
		return api.Kernel{}, err
	}
	release, err := f.unpack(ctx, deb)
	if err != nil {
		return api.Kernel{}, err
	}
	f.tell("prepare "+release, 0)
	if err := f.indexModules(ctx, release); err != nil {
		return api.Kernel{}, err
	}
	if err := f.initrdFiles(release); err != nil {
		return api.Kernel{}, err
	}
	if err := f.moduleFS(ctx, release); err != nil {
		return api.Kernel{}, err
	}
	if err := f.vmlinux(); err != nil {
		return api.Kernel{}, err
	}
	return api.Kernel{
		Release: release, Package: rec.Package, Version: rec.Version, SHA256: rec.SHA256, CreatedAt: time.Now().UTC(),
	}, nil
}

// fetch is one run of Source.Fetch.
type fetch struct {
	Source
	dir, work string
	progress  api.ProgressFunc
}

func (f *fetch) tell(detail string, percent float64) {
	if f.progress != nil {
		f.progress(api.Progress{Stage: "kernel", Detail: detail, Done: int64(percent), Total: 100})
	}
}

// download gets the package that the metapackage depends on, and checks it once more than apt does.
func (f *fetch) download(ctx context.Context) (apt.Record, string, error) {
	dir := filepath.Join(f.work, "apt")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return apt.Record{}, "", fmt.Errorf("fetch a kernel: %w", err)
	}
	c, err := apt.NewClient(ctx, dir, f.Archive)
	if err != nil {
		return apt.Record{}, "", err
	}
	f.tell("read Debian's package lists", 0)
	if err := c.Update(ctx, func(p float64) { f.tell("read Debian's package lists", p) }); err != nil {
		return apt.Record{}, "", err
	}
	meta, err := c.Newest(ctx, metaPackage+runtime.GOARCH)
	if err != nil {
		return apt.Record{}, "", err
	}
	name, err := imagePackage(meta.Depends)
	if err != nil {
		return apt.Record{}, "", errdefs.Image.Errorf("%s %s: %w", meta.Package, meta.Version, err)
	}
	rec, err := c.Newest(ctx, name)
	if err != nil {
		return apt.Record{}, "", err
	}
	detail := fmt.Sprintf("download %s (%d MB)", rec.Package, rec.Size/1e6)
	f.tell(detail, 0)
	deb, err := c.Download(ctx, rec, func(p float64) { f.tell(detail, p) })
	if err != nil {
		return apt.Record{}, "", err
	}
	sum, err := hashFile(deb)
	if err != nil {
		return apt.Record{}, "", err
	}
	if sum != rec.SHA256 {
		return apt.Record{}, "", errdefs.Image.Errorf("%s has the hash %s, the signed list says %s", rec.Package, sum, rec.SHA256)
	}
	return rec, deb, nil
}

var imageName = regexp.MustCompile(`^linux-image-[0-9][a-z0-9.+-]*$`)

// imagePackage picks the kernel out of the metapackage's dependencies.
func imagePackage(depends string) (string, error) {
	for dep := range strings.SplitSeq(depends, ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(dep), " ")
		if imageName.MatchString(name) {
			return name, nil
		}
	}
	return "", fmt.Errorf("no kernel among its dependencies %q", depends)
}

func hashFile(name string) (string, error) {
	r, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(r, maxDeb)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// indexModules lets depmod write the index files beside the modules.
func (f *fetch) indexModules(ctx context.Context, release string) error {
	tool, err := apt.Tool("depmod", "kmod")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, tool, "-b", f.work, release)
	cmd.Dir, cmd.Env = "/", apt.Environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		return errdefs.Image.Errorf("depmod: %w: %.500s", err, out)
	}
	return nil
}

// initrdFiles copies what an initramfs needs: the module files and, in "list", the order to load them in.
func (f *fetch) initrdFiles(release string) error {
	tree, err := os.OpenRoot(filepath.Join(f.work, "lib/modules", release))
	if err != nil {
		return fmt.Errorf("modules: %w", err)
	}
	defer func() { _ = tree.Close() }()
	order, err := readOrder(tree)
	if err != nil {
		return errdefs.Image.Errorf("%s: %w", release, err)
	}
	to := filepath.Join(f.dir, image.InitrdModules)
	if err := os.Mkdir(to, 0o755); err != nil {
		return fmt.Errorf("modules: %w", err)
	}
	var list strings.Builder
	for _, file := range order {
		b, err := tree.ReadFile(file)
		if err != nil {
			return fmt.Errorf("modules: %w", err)
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), b, 0o444); err != nil {
			return fmt.Errorf("modules: %w", err)
		}
		fmt.Fprintln(&list, filepath.Base(file))
	}
	return os.WriteFile(filepath.Join(to, "list"), []byte(list.String()), 0o444)
}

func readOrder(tree *os.Root) ([]string, error) {
	dep, err := tree.Open("modules.dep")
	if err != nil {
		return nil, err
	}
	defer func() { _ = dep.Close() }()
	deps, err := parseDepends(dep)
	if err != nil {
		return nil, err
	}
	b, err := tree.Open("modules.builtin")
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }()
	builtin, err := parseBuiltin(b)
	if err != nil {
		return nil, err
	}
	return loadOrder(initrdModules(), deps, builtin)
}

// moduleFS makes the file system that the guest mounts at /usr/lib/modules/RELEASE.
func (f *fetch) moduleFS(ctx context.Context, release string) error {
	out, err := os.OpenFile(filepath.Join(f.dir, image.ModulesFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return fmt.Errorf("modules: %w", err)
	}
	defer func() { _ = out.Close() }()
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeTree(w, filepath.Join(f.work, "lib/modules", release))) }()
	err = ext4.Convert(ctx, r, out, maxModuleFS)
	_ = r.CloseWithError(io.ErrClosedPipe)
	if err != nil {
		return err
	}
	return out.Close()
}

// vmlinux extracts the kernel that unpack put beside.
func (f *fetch) vmlinux() error {
	in, err := os.Open(filepath.Join(f.work, "vmlinuz"))
	if err != nil {
		return fmt.Errorf("vmlinuz: %w", err)
	}
	defer func() { _ = in.Close() }()
	st, err := in.Stat()
	if err != nil {
		return fmt.Errorf("vmlinuz: %w", err)
	}
	out, err := os.OpenFile(filepath.Join(f.dir, image.KernelFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return fmt.Errorf("vmlinux: %w", err)
	}
	defer func() { _ = out.Close() }()
	if err := extractVmlinux(in, st.Size(), out); err != nil {
		return errdefs.Image.Errorf("take vmlinux out of Debian's kernel: %w", err)
	}
	return out.Close()
}
