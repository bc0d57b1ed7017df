package prune

import (
	"archive/tar"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/bootfile"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// source gives kernels and root file systems that nobody boots, each another one.
type source struct{ n *int }

func (s source) Name() string { return api.DefaultImage }

func (s source) Build(_ context.Context, _ image.BuildRequest, w io.Writer) (image.Facts, error) {
	*s.n++
	t := tar.NewWriter(w)
	if err := t.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(*s.n)}); err != nil {
		return image.Facts{}, err
	}
	if _, err := t.Write(make([]byte, *s.n)); err != nil {
		return image.Facts{}, err
	}
	return image.Facts{Source: "test"}, t.Close()
}

func (s source) Fetch(_ context.Context, dir string, _ api.ProgressFunc) (api.Kernel, error) {
	*s.n++
	if err := os.Mkdir(filepath.Join(dir, image.InitrdModules), 0o700); err != nil {
		return api.Kernel{}, err
	}
	for _, name := range []string{image.KernelFile, image.ModulesFile, filepath.Join(image.InitrdModules, "list")} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, *s.n), 0o600); err != nil {
			return api.Kernel{}, err
		}
	}
	return api.Kernel{Release: "6.0.0-test", Package: "linux", Version: "6.0", CreatedAt: time.Now()}, nil
}

// TestPrune: what VMs were made from stays, and what new ones get; the rest goes.
func TestPrune(t *testing.T) {
	ctx, home := t.Context(), filepath.Join(t.TempDir(), "home")
	s := source{new(int)}
	images := image.New(image.Options{Home: home, Builders: []image.Builder{s}, Kernels: s, Version: "test"})
	m, err := lifecycle.New(lifecycle.Options{Home: home, Engines: &engine.Registry{}, Images: images, Agent: []byte("agent")})
	if err != nil {
		t.Fatal(err)
	}
	p := Pruner{VMs: m, Images: images}
	find := func(o api.PruneOptions, want ...string) []api.Leftover {
		t.Helper()
		found, err := p.Find(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, l := range found {
			kinds = append(kinds, l.Kind)
		}
		if !slices.Equal(kinds, want) {
			t.Errorf("%+v: found %+v, want %v", o, found, want)
		}
		return found
	}
	find(api.PruneOptions{All: true, VMs: true})
	if _, err := m.Create(ctx, api.Config{ID: "old", DiskMiB: 256}, lifecycle.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	refresh := func() {
		t.Helper()
		if _, err := images.EnsureKernel(ctx, true, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := images.Ensure(ctx, api.DefaultImage, image.EnsureOptions{Refresh: true}); err != nil {
			t.Fatal(err)
		}
	}
	refresh()
	find(api.PruneOptions{})
	refresh()
	gone := find(api.PruneOptions{}, "image", "kernel")
	find(api.PruneOptions{All: true}, "image", "image", "kernel")
	find(api.PruneOptions{VMs: true}, "vm", "image", "image", "kernel", "kernel")
	for _, l := range gone {
		if l.Bytes <= 0 || l.Why == "" {
			t.Errorf("%+v", l)
		}
		if err := p.Remove(ctx, l); err != nil {
			t.Error(err)
		}
	}
	find(api.PruneOptions{})
	for _, l := range find(api.PruneOptions{VMs: true, All: true}, "vm", "image", "image", "kernel") {
		if err := p.Remove(ctx, l); err != nil {
			t.Error(err)
		}
	}
	find(api.PruneOptions{VMs: true, All: true})
	k, err := images.LookupKernel(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Remove(ctx, api.Leftover{Kind: "kernel", Name: k.ID}); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("the kernel of new VMs: %v", err)
	}
}

// TestBuilt: what was laid out goes when no VM was made from it, and its image was replaced or all is to go.
func TestBuilt(t *testing.T) {
	ctx, s := t.Context(), source{new(int)}
	home := filepath.Join(t.TempDir(), "home")
	images := image.New(image.Options{Home: home, Builders: []image.Builder{s}, Kernels: s, Version: "test"})
	m, err := lifecycle.New(lifecycle.Options{Home: home, Engines: &engine.Registry{}, Images: images, Agent: []byte("agent")})
	if err != nil {
		t.Fatal(err)
	}
	p := Pruner{VMs: m, Images: images}
	build := func(size int) string {
		t.Helper()
		b, err := bootfile.Build(ctx, images, api.SSHImageRequest{SSHPublicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIItpPbk9jOQqNZ/u/U25yBS+1NlRuP8AtGWCQ2pubbBC", RootfsSizeMiB: size}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return b.RootfsPath
	}
	used, idle := build(300), build(400)
	if _, err := m.Create(ctx, api.Config{ID: "vm", RootfsPath: used}, lifecycle.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	built := func(o api.PruneOptions) (names []string) {
		t.Helper()
		found, err := p.Find(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range found {
			if l.Kind == "built" {
				names = append(names, l.Name)
				if l.Bytes > 1<<16 {
					t.Errorf("%+v: it shares its file with the image", l)
				}
			}
		}
		return names
	}
	name := filepath.Base(filepath.Dir(idle))
	if got := built(api.PruneOptions{}); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if got := built(api.PruneOptions{All: true}); !slices.Equal(got, []string{name}) {
		t.Errorf("%v", got)
	}
	if got := built(api.PruneOptions{All: true, VMs: true}); len(got) != 2 {
		t.Errorf("%v", got)
	}
	if _, err := images.Ensure(ctx, api.DefaultImage, image.EnsureOptions{Refresh: true}); err != nil {
		t.Fatal(err)
	}
	if got := built(api.PruneOptions{}); !slices.Equal(got, []string{name}) {
		t.Errorf("of an image that was replaced: %v", got)
	}
	if err := p.Remove(ctx, api.Leftover{Kind: "built", Name: name}); err != nil {
		t.Error(err)
	}
	if got := built(api.PruneOptions{}); len(got) != 0 {
		t.Errorf("%v", got)
	}
}
