package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	"github.com/smolvm/smolvm/internal/image/ext4"
)

// Ensure returns the image called name, made by its builder when it is absent or has other packages than asked for. Two
// processes that want it build it once.
func (s *Store) Ensure(ctx context.Context, name string, o EnsureOptions) (api.Image, error) {
	asked := time.Now()
	o.Include = slices.Compact(slices.Sorted(slices.Values(o.Include)))
	if img, err := s.lookup(ctx, name); err == nil {
		if !o.Refresh && o.has(img) {
			return img, nil
		}
		if len(o.Include) == 0 {
			o.Include = img.Include
		}
	}
	b, err := s.builder(name, o)
	if err != nil {
		return api.Image{}, err
	}
	unlock, err := s.lockBuild(ctx, "image", o.Progress)
	if err != nil {
		return api.Image{}, err
	}
	defer unlock()
	img, err := s.lookup(ctx, name)
	if err == nil && o.has(img) && (!o.Refresh || img.CreatedAt.After(asked)) {
		return img, nil // another process made it while we waited
	}
	if err != nil && !errdefs.Is(err, errdefs.NotFound) {
		s.opts.Log.Warn("the cached image is made anew", "image", name, "why", err)
	}
	img, err = s.build(ctx, name, b, o)
	if err != nil {
		return api.Image{}, wrap("build the image "+name, err)
	}
	return img, nil
}

// has reports whether img has the packages that are asked for.
func (o *EnsureOptions) has(img api.Image) bool {
	return len(o.Include) == 0 || slices.Equal(o.Include, img.Include)
}

// builder finds who makes the image called name. A name of its own with packages is Debian's builder with those.
func (s *Store) builder(name string, o EnsureOptions) (Builder, error) {
	if digestRule.MatchString(name) {
		return nil, errdefs.NotFound.Errorf("image %s is not in the cache", name).WithRemedy("smolvm image ls")
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	for _, b := range s.opts.Builders {
		if b.Name() == name {
			if len(o.Include) > 0 {
				return nil, errdefs.Invalid.Errorf("an image with packages of your choice needs a name of its own, not %q", name)
			}
			return b, nil
		}
	}
	if len(o.Include) > 0 && len(s.opts.Builders) > 0 {
		return s.opts.Builders[0], nil
	}
	return nil, errdefs.NotFound.Errorf("there is no image %q", name).WithRemedy("smolvm image ls")
}

// build runs a builder into the cache. The build lock is held.
func (s *Store) build(ctx context.Context, name string, b Builder, o EnsureOptions) (api.Image, error) {
	return s.create(ctx, name, b.Name(), func(ctx context.Context, w io.Writer) (Facts, error) {
		facts, err := b.Build(ctx, BuildRequest{Include: o.Include, Progress: o.Progress, Scratch: s.imagesDir()}, w)
		facts.Include = o.Include
		return facts, err
	}, o.Progress)
}

// Import makes the image called name of a tar. The facts' SBOM is kept with it.
func (s *Store) Import(ctx context.Context, name string, tar io.Reader, f Facts, builder string) (api.Image, error) {
	if err := checkName(name); err != nil {
		return api.Image{}, err
	}
	unlock, err := s.lockBuild(ctx, "image", nil)
	if err != nil {
		return api.Image{}, err
	}
	defer unlock()
	img, err := s.create(ctx, name, builder, func(ctx context.Context, w io.Writer) (Facts, error) {
		_, err := io.Copy(w, tar)
		return f, err
	}, nil)
	if err != nil {
		return api.Image{}, wrap("import the image "+name, err)
	}
	return img, nil
}

// create publishes what write gives as a tar, and names it.
func (s *Store) create(
	ctx context.Context, name, builder string, write func(context.Context, io.Writer) (Facts, error), progress api.ProgressFunc,
) (api.Image, error) {
	temp, err := tempDir(s.imagesDir())
	if err != nil {
		return api.Image{}, err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	facts, err := convert(ctx, filepath.Join(temp, rootfsFile), write)
	if err != nil {
		return api.Image{}, err
	}
	if progress != nil {
		progress(api.Progress{Stage: "filesystem", Detail: "write the image to disk"})
	}
	sbom, err := json.Marshal(facts.Packages)
	if err != nil {
		return api.Image{}, err
	}
	if err := os.WriteFile(filepath.Join(temp, sbomFile), sbom, 0o600); err != nil {
		return api.Image{}, err
	}
	files, err := seal(ctx, temp)
	if err != nil {
		return api.Image{}, err
	}
	img := api.Image{
		Name: name, CreatedAt: time.Now().UTC(), Builder: builder, BuilderBy: s.opts.Version, Source: facts.Source,
		Include: facts.Include,
	}
	for _, f := range files {
		if f.Name == rootfsFile {
			img.Digest, img.SizeBytes = "sha256:"+f.SHA256, f.Size
		}
	}
	m := manifest{Schema: schema, Image: &img, Files: files}
	if err := m.publish(ctx, temp, s.imageDir(hexOf(img.Digest))); err != nil {
		return api.Image{}, err
	}
	if err := s.setName(name, img.Digest); err != nil {
		return api.Image{}, err
	}
	return s.lookup(ctx, name)
}

// convert streams the tar that write gives into an ext4 file.
func convert(ctx context.Context, path string, write func(context.Context, io.Writer) (Facts, error)) (Facts, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return Facts{}, err
	}
	defer func() { _ = f.Close() }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	type result struct {
		facts Facts
		err   error
	}
	built := make(chan result, 1)
	go func() {
		facts, err := write(ctx, w)
		_ = w.CloseWithError(err) // nil gives the reader its EOF
		built <- result{facts, err}
	}()
	err = ext4.Convert(ctx, r, f, 0)
	if err == nil {
		// A tar ends before its stream does.
		_, err = io.Copy(io.Discard, r)
	}
	if err != nil {
		cancel(err) // ends the builder
	}
	_ = r.CloseWithError(errClosed)
	res := <-built
	if err != nil { // a builder's own error came through the pipe
		return Facts{}, err
	}
	return res.facts, f.Close()
}

// errClosed is what a builder's writes meet after the conversion has failed.
var errClosed = errors.New("the file system is not written any further")

func (s *Store) setName(name, digest string) error {
	if err := os.MkdirAll(s.namesDir(), 0o700); err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(s.namesDir(), name), []byte(digest+"\n"), 0o600)
}

// resolve turns a name or a digest into a digest.
func (s *Store) resolve(name string) (string, error) {
	if digestRule.MatchString(name) {
		return name, nil
	}
	if err := checkName(name); err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(s.namesDir(), name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", errdefs.NotFound.Errorf("there is no image %q in the cache", name).WithRemedy("smolvm image build --name %s", name)
	}
	if err != nil {
		return "", cacheError("read the cache", err)
	}
	digest := strings.TrimSpace(string(b))
	if !digestRule.MatchString(digest) {
		return "", errdefs.Image.Errorf("the image name %q leads to %.80q", name, digest).
			WithRemedy("smolvm image build --refresh --name %s", name)
	}
	return digest, nil
}

// Lookup returns the image called name, or with the digest name, without building it.
func (s *Store) Lookup(name string) (api.Image, error) {
	return s.lookup(context.Background(), name) //nolint:forbidigo // bounded: it reads one file, or hashes one whose time differs
}

func (s *Store) lookup(ctx context.Context, name string) (api.Image, error) {
	digest, err := s.resolve(name)
	if err != nil {
		return api.Image{}, err
	}
	img, m, err := s.read(digest)
	if err != nil {
		return api.Image{}, err
	}
	if err := m.check(ctx, s.imageDir(hexOf(digest)), false); err != nil {
		return api.Image{}, s.damaged(name, fmt.Errorf("image %s: %w", name, err))
	}
	if name != digest {
		img.Name = name
	}
	return img, nil
}

// read reads the record of an image.
func (s *Store) read(digest string) (api.Image, manifest, error) {
	dir := s.imageDir(hexOf(digest))
	m, err := readManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return api.Image{}, m, errdefs.NotFound.Errorf("image %s is not in the cache", digest).WithRemedy("smolvm image ls")
	}
	if err != nil {
		return api.Image{}, m, s.damaged(digest, wrap("image "+digest, err))
	}
	if m.Image == nil || m.Image.Digest != digest {
		return api.Image{}, m, s.damaged(digest, fmt.Errorf("%s is not the record of %s", dir, digest))
	}
	img := *m.Image
	img.Path = filepath.Join(dir, rootfsFile)
	return img, m, nil
}

func (s *Store) damaged(name string, err error) error {
	if digestRule.MatchString(name) {
		return errdefs.Image.Errorf("%w", err).WithRemedy("smolvm image rm %s", name)
	}
	return errdefs.Image.Errorf("%w", err).WithRemedy("smolvm image build --refresh --name %s", name)
}

// Inspect is Lookup with the SBOM.
func (s *Store) Inspect(name string) (api.Image, error) {
	img, err := s.Lookup(name)
	if err != nil {
		return api.Image{}, err
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(img.Path), sbomFile))
	if err == nil {
		err = json.Unmarshal(b, &img.Packages)
	}
	if err != nil {
		return api.Image{}, s.damaged(name, fmt.Errorf("the SBOM of %s: %w", name, err))
	}
	return img, nil
}
