package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image/initramfs"
)

// EnsureKernel returns the pinned kernel, fetched when there is none, or the newest with refresh.
func (s *Store) EnsureKernel(ctx context.Context, refresh bool, progress api.ProgressFunc) (api.Kernel, error) {
	asked := time.Now()
	if !refresh {
		if k, err := s.pinnedKernel(ctx); err == nil {
			return k, nil
		}
	}
	unlock, err := s.lockBuild(ctx, "kernel", progress)
	if err != nil {
		return api.Kernel{}, err
	}
	defer unlock()
	k, err := s.pinnedKernel(ctx)
	if err == nil && (!refresh || k.CreatedAt.After(asked)) {
		return k, nil // another process made it while we waited
	}
	if err != nil && !errdefs.Is(err, errdefs.NotFound) {
		s.opts.Log.Warn("the cached kernel is made anew", "why", err)
	}
	k, err = s.fetchKernel(ctx, progress)
	if err != nil {
		return api.Kernel{}, wrap("get a guest kernel", err)
	}
	return k, nil
}

func (s *Store) fetchKernel(ctx context.Context, progress api.ProgressFunc) (api.Kernel, error) {
	if s.opts.Kernels == nil {
		return api.Kernel{}, errdefs.Image.Errorf("there is no source of kernels")
	}
	temp, err := tempDir(s.kernelsDir())
	if err != nil {
		return api.Kernel{}, err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	k, err := s.opts.Kernels.Fetch(ctx, temp, progress)
	if err != nil {
		return api.Kernel{}, err
	}
	facts, err := seal(ctx, temp)
	if err != nil {
		return api.Kernel{}, err
	}
	m := manifest{Schema: schema, Kernel: &k, Files: facts}
	k.ID = k.Release + "-" + m.digest()[:12]
	if !kernelRule.MatchString(k.ID) {
		return api.Kernel{}, errdefs.Image.Errorf("kernel release %q", k.Release)
	}
	if err := m.publish(ctx, temp, s.kernelDir(k.ID)); err != nil {
		return api.Kernel{}, err
	}
	// A refresh that finds nothing newer counts as one: the pin's time is when the archive was asked.
	if err := renameio.WriteFile(s.pinFile(), []byte(k.ID+"\n"), 0o600); err != nil {
		return api.Kernel{}, err
	}
	return s.pinnedKernel(ctx)
}

// pinnedKernel returns the kernel that new VMs get, if it is there and whole. Its CreatedAt is the time of the pin.
func (s *Store) pinnedKernel(ctx context.Context) (api.Kernel, error) {
	b, err := os.ReadFile(s.pinFile())
	if errors.Is(err, fs.ErrNotExist) {
		return api.Kernel{}, errdefs.NotFound.Errorf("no guest kernel in the cache").WithRemedy("smolvm image build")
	}
	if err != nil {
		return api.Kernel{}, cacheError("read the cache", err)
	}
	k, err := s.LookupKernel(ctx, strings.TrimSpace(string(b)))
	if err != nil {
		return api.Kernel{}, err
	}
	if st, err := os.Stat(s.pinFile()); err == nil {
		k.CreatedAt = st.ModTime().UTC()
	}
	return k, nil
}

// LookupKernel returns the kernel with that id; "" means the pinned one. It is never fetched.
func (s *Store) LookupKernel(ctx context.Context, id string) (api.Kernel, error) {
	if id == "" {
		return s.pinnedKernel(ctx)
	}
	if !kernelRule.MatchString(id) {
		return api.Kernel{}, errdefs.Invalid.Errorf("kernel id %q", id)
	}
	dir := s.kernelDir(id)
	m, err := readManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return api.Kernel{}, errdefs.NotFound.Errorf("kernel %s is not in the cache", id).WithRemedy("smolvm image build --refresh")
	}
	if err != nil {
		return api.Kernel{}, wrap("kernel "+id, err)
	}
	if m.Kernel == nil {
		return api.Kernel{}, errdefs.Image.Errorf("%s is no kernel", dir)
	}
	if err := m.check(ctx, dir, false); err != nil {
		return api.Kernel{}, errdefs.Image.Errorf("kernel %s: %w", id, err).WithRemedy("smolvm image build --refresh")
	}
	k := *m.Kernel
	k.ID, k.Path = id, filepath.Join(dir, KernelFile)
	return k, nil
}

// initrdFormat is part of an initramfs's name: raise it when what lies in one changes.
const initrdFormat = "2"

// BootFiles returns what kernel k boots with agent as its /init; the initramfs is made when it is absent. A zero k is a kernel that
// is not of the cache: what it boots with has no modules.
func (s *Store) BootFiles(ctx context.Context, k api.Kernel, agent []byte) (BootFiles, error) {
	if len(agent) == 0 {
		return BootFiles{}, errdefs.Internal.Errorf("this smolvm carries no guest agent").WithRemedy("script/build")
	}
	hash := sha256.New()
	_, _ = io.WriteString(hash, initrdFormat+"\n") // never fails
	_, _ = hash.Write(agent)
	name := initrdPrefix + hex.EncodeToString(hash.Sum(nil)[:8]) + ".img"
	if k.ID == "" {
		err := os.MkdirAll(s.kernelsDir(), 0o700)
		b := BootFiles{Initrd: filepath.Join(s.kernelsDir(), name)}
		if err == nil {
			err = ensureInitrd(b.Initrd, agent, nil)
		}
		return b, wrap("initramfs", err)
	}
	k, err := s.LookupKernel(ctx, k.ID)
	if err != nil {
		return BootFiles{}, err
	}
	dir := filepath.Dir(k.Path)
	b := BootFiles{Kernel: k.Path, Modules: filepath.Join(dir, ModulesFile), Initrd: filepath.Join(dir, name)}
	modules, err := readModules(filepath.Join(dir, InitrdModules))
	if err == nil {
		err = ensureInitrd(b.Initrd, agent, modules)
	}
	return b, wrap("initramfs", err)
}

// ensureInitrd makes an initramfs, unless it is there.
func ensureInitrd(path string, agent []byte, modules []initramfs.Module) error {
	size, err := initramfs.Size(agent, modules)
	if err != nil {
		return err
	}
	now := time.Now()
	if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() && st.Size() == size {
		_ = os.Chtimes(path, now, now) // only decides which old one goes first
		return nil
	}
	var img bytes.Buffer
	if err := initramfs.Write(&img, agent, modules); err != nil {
		return err
	}
	if err := renameio.WriteFile(path, img.Bytes(), 0o444, renameio.IgnoreUmask()); err != nil {
		return err
	}
	dropInitrds(filepath.Dir(path), now)
	return nil
}

// readModules reads what a KernelSource put aside for the initramfs.
func readModules(dir string) ([]initramfs.Module, error) {
	list, err := os.ReadFile(filepath.Join(dir, "list"))
	if err != nil {
		return nil, err
	}
	var modules []initramfs.Module
	for name := range strings.FieldsSeq(string(list)) {
		b, err := os.ReadFile(filepath.Join(dir, filepath.Base(name)))
		if err != nil {
			return nil, err
		}
		modules = append(modules, initramfs.Module{Name: name, Data: b})
	}
	return modules, nil
}

// dropInitrds removes the initramfs of former agents: a VMM reads its own within seconds of its start and never again,
// so the four used last stay, and any that was used within the hour.
func dropInitrds(dir string, now time.Time) {
	found, err := filepath.Glob(filepath.Join(dir, initrdPrefix+"*.img"))
	if err != nil {
		return
	}
	age := func(p string) time.Duration {
		st, err := os.Lstat(p)
		if err != nil {
			return 0
		}
		return now.Sub(st.ModTime())
	}
	slices.SortFunc(found, func(a, b string) int { return int(age(a)/time.Second) - int(age(b)/time.Second) })
	for i, p := range found {
		if i >= 4 && age(p) > time.Hour {
			_ = os.Remove(p) // the next one tries again
		}
	}
}
