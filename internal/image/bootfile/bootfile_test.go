package bootfile

import (
	"archive/tar"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image"
)

const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIItpPbk9jOQqNZ/u/U25yBS+1NlRuP8AtGWCQ2pubbBC"

// vmlinux is the smallest file that passes for one.
func vmlinux() []byte {
	b := make([]byte, 4096+512)
	copy(b, elf.ELFMAG)
	b[4], b[5], b[6] = 2, 1, 1
	le := binary.LittleEndian
	le.PutUint16(b[16:], uint16(elf.ET_EXEC))
	le.PutUint16(b[18:], uint16(elf.EM_X86_64))
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	le.PutUint32(b[64:], uint32(elf.PT_LOAD))
	le.PutUint64(b[64+8:], 4096)
	le.PutUint64(b[64+32:], 512)
	return b
}

type kernels struct{}

func (kernels) Fetch(_ context.Context, dir string, _ api.ProgressFunc) (api.Kernel, error) {
	if err := os.Mkdir(filepath.Join(dir, image.InitrdModules), 0o700); err != nil {
		return api.Kernel{}, err
	}
	for name, b := range map[string][]byte{image.KernelFile: vmlinux(), image.ModulesFile: nil, image.InitrdModules + "/list": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return api.Kernel{}, err
		}
	}
	return api.Kernel{Release: "6.0.0-test", Version: "6.0", CreatedAt: time.Now()}, nil
}

type builder struct{ text string }

func (builder) Name() string { return api.DefaultImage }

func (b builder) Build(_ context.Context, _ image.BuildRequest, w io.Writer) (image.Facts, error) {
	t := tar.NewWriter(w)
	if err := t.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(b.text))}); err != nil {
		return image.Facts{}, err
	}
	if _, err := io.WriteString(t, b.text); err != nil {
		return image.Facts{}, err
	}
	return image.Facts{Source: "test"}, t.Close()
}

// cache is a home with an image and a kernel.
func cache(t *testing.T) (images *image.Store, img api.Image, kernel api.Kernel, dir string) {
	t.Helper()
	home, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	images = image.New(image.Options{Home: filepath.Join(home, "home"), Builders: []image.Builder{builder{"text"}}, Kernels: kernels{}, Version: "test"})
	if img, err = images.Ensure(t.Context(), api.DefaultImage, image.EnsureOptions{}); err != nil {
		t.Fatal(err)
	}
	if kernel, err = images.EnsureKernel(t.Context(), false, nil); err != nil {
		t.Fatal(err)
	}
	return images, img, kernel, home
}

func write(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// edited is a copy of b with something else at an offset.
func edited(b []byte, at int, what ...byte) []byte {
	b = append([]byte{}, b...)
	copy(b[at:], what)
	return b
}

// TestResolveRefuses: what cannot be booted is refused with its reason, before anything is made.
func TestResolveRefuses(t *testing.T) {
	_, img, _, dir := cache(t)
	fs, k := read(t, img.Path), vmlinux()
	at := func(name string, b []byte) string { return write(t, filepath.Join(dir, "files", name), b) }
	pipe, loop, gone := filepath.Join(dir, "pipe"), filepath.Join(dir, "loop"), filepath.Join(dir, "gone")
	for _, err := range []error{unix.Mkfifo(pipe, 0o600), os.Symlink("loop", loop), os.Symlink("nowhere", gone)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	zip := append(make([]byte, 0x202), "HdrS...."...)
	table := []struct {
		rootfs, kernel, says string
		class                errdefs.Class
	}{
		{filepath.Join(dir, "absent"), "", "no such file", errdefs.NotFound},
		{gone, "", "no such file", errdefs.NotFound},
		{"bootfile_test.go", "", "no absolute path", errdefs.Invalid},
		{"", "../bootfile/doc.go", "no absolute path", errdefs.Invalid},
		{loop, "", "too many links", errdefs.NotFound},
		{dir, "", "no regular file", errdefs.Invalid},
		{pipe, "", "no regular file", errdefs.Invalid},
		{"/dev/zero", "", "no regular file", errdefs.Invalid},
		{at("empty", nil), "", "no ext4", errdefs.Image},
		{at("text", []byte(strings.Repeat("text", 2000))), "", "no ext4", errdefs.Image},
		{at("qcow", append([]byte("QFI\xfb"), make([]byte, 4096)...)), "", "no ext4", errdefs.Image},
		{at("short", fs[:len(fs)-1]), "", "it was cut off", errdefs.Image},
		{at("head", fs[:1500]), "", "no ext4", errdefs.Image},
		{at("dirty", edited(fs, 1024+0x60, fs[1024+0x60]|4)), "", "mounted for writing", errdefs.Image},
		{at("huge", edited(fs, 1024+0x18, 60)), "", "damaged", errdefs.Image},
		{at("none", edited(fs, 1024+4, 0, 0, 0, 0)), "", "damaged", errdefs.Image},
		{"", at("bzImage", zip), "no vmlinux", errdefs.Image},
		{"", at("arm", edited(k, 18, 183)), "64-bit x86", errdefs.Image},
		{"", at("32", edited(k, 4, 1)), "64-bit x86", errdefs.Image},
		{"", at("object", edited(k, 16, 1)), "64-bit x86", errdefs.Image},
		{"", at("far", edited(k, 32, 0, 0, 0, 0, 0, 0, 0, 0x80)), "damaged", errdefs.Image},
		{"", at("end", edited(k, 32, 0xff, 0x11)), "damaged", errdefs.Image},
		{"", at("many", edited(k, 56, 0xff, 0xff)), "damaged", errdefs.Image},
		{"", at("cut", k[:4500]), "it was cut off", errdefs.Image},
		{"", at("wrap", edited(k, 64+8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), "it was cut off", errdefs.Image},
		{"", at("nothing", edited(k, 64, 4)), "nothing in it", errdefs.Image},
		{"", "/bin/true\x00", "", errdefs.NotFound},
	}
	for _, tt := range table {
		_, _, err := Resolve(api.Config{RootfsPath: tt.rootfs, KernelPath: tt.kernel}, false)
		if !errdefs.Is(err, tt.class) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s%s: %v (%s), want %q (%s)", tt.rootfs, tt.kernel, err, errdefs.ClassOf(err), tt.says, tt.class)
		}
	}
	for says, cfg := range map[string]api.Config{
		"boot args":                    {BootArgs: "smolvm.raw"},
		"authorized keys: number 2":    {AuthorizedKeys: []string{key, "ssh-ed25519 AAAA"}},
		"number 1: it is damaged":      {AuthorizedKeys: []string{key[:len(key)-8]}},
		"may not read " + dir + "/fil": {KernelPath: at("kernel", k)},
	} {
		if _, _, err := Resolve(cfg, true); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", cfg, err, says)
		}
	}
}

// TestFacts: what lies beside a root file system fills in what is not said; what is wrong there is refused.
func TestFacts(t *testing.T) {
	_, img, _, dir := cache(t)
	path := write(t, filepath.Join(dir, "own", "any-name"), read(t, img.Path))
	beside := filepath.Join(filepath.Dir(path), FactsFile)
	said := facts{Schema: 1, DiskMiB: 512, AuthorizedKeys: []string{key}}
	put := func(v any) {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		write(t, beside, b)
	}
	if cfg, src, err := Resolve(api.Config{RootfsPath: path}, false); err != nil || cfg.DiskMiB != 0 || src.RootfsMark == "" {
		t.Errorf("nothing said: %+v, %+v, %v", cfg, src, err)
	}
	put(said)
	cfg, _, err := Resolve(api.Config{RootfsPath: path, AuthorizedKeys: []string{key}}, false)
	if err != nil || cfg.DiskMiB != 512 || len(cfg.AuthorizedKeys) != 1 {
		t.Errorf("%+v, %v", cfg, err)
	}
	if cfg, _, err = Resolve(api.Config{RootfsPath: path, DiskMiB: 300, AuthorizedKeys: []string{key + " me"}}, false); err != nil || cfg.DiskMiB != 300 || len(cfg.AuthorizedKeys) != 2 {
		t.Errorf("%+v, %v", cfg, err)
	}
	link := filepath.Join(dir, "elsewhere")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if cfg, _, err = Resolve(api.Config{RootfsPath: link}, false); err != nil || cfg.RootfsPath != path || cfg.DiskMiB != 512 {
		t.Errorf("by a link: %+v, %v", cfg, err)
	}
	for _, bad := range []any{
		"text",
		facts{},
		facts{Schema: 2},
		facts{Schema: 1, DiskMiB: 5},
		facts{Schema: 1, AuthorizedKeys: []string{"x"}},
		facts{Schema: 1, AuthorizedKeys: make([]string, api.MaxAuthorizedKeys+1)},
		strings.Repeat("x", maxFacts),
	} {
		put(bad)
		if _, _, err := Resolve(api.Config{RootfsPath: path}, false); !errdefs.Is(err, errdefs.Image) || errdefs.RemedyOf(err) == "" {
			t.Errorf("%.80v: %v", bad, err)
		}
	}
	put(said)
	if err := os.Chmod(beside, 0o602); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Resolve(api.Config{RootfsPath: path}, false); !errdefs.Is(err, errdefs.Denied) {
		t.Errorf("others may write it: %v", err)
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chmod(beside, 0o600), os.Chown(beside, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Resolve(api.Config{RootfsPath: path}, false); !errdefs.Is(err, errdefs.Denied) {
			t.Errorf("it is another user's: %v", err)
		}
	}
	if err := errors.Join(os.Remove(beside), unix.Mkfifo(beside, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Resolve(api.Config{RootfsPath: path}, false); !errdefs.Is(err, errdefs.Image) {
		t.Errorf("a pipe: %v", err)
	}
}

// TestSame: a file of the cache is one by whatever path; a copy is not.
func TestSame(t *testing.T) {
	images, img, kernel, dir := cache(t)
	built, err := Build(t.Context(), images, api.SSHImageRequest{SSHPublicKey: key, RootfsSizeMiB: 512}, nil)
	if err != nil {
		t.Fatal(err)
	}
	copied := write(t, filepath.Join(dir, "copy", "rootfs.ext4"), read(t, img.Path))
	write(t, filepath.Join(dir, "copy", FactsFile), read(t, filepath.Join(filepath.Dir(built.RootfsPath), FactsFile)))
	foreign := write(t, filepath.Join(dir, kernel.ID, "vmlinux"), vmlinux())
	for _, tt := range []struct {
		rootfs, kernel string
		digest, id     string
		held           int
		modules        bool
	}{
		{"", "", img.Digest, kernel.ID, 2, true},
		{img.Path, kernel.Path, img.Digest, kernel.ID, 2, true},
		{built.RootfsPath, built.KernelPath, img.Digest, kernel.ID, 3, true},
		{copied, "", "", kernel.ID, 1, true},
		{"", foreign, img.Digest, "", 1, false},
		{copied, foreign, "", "", 0, false},
	} {
		cfg, src, err := Resolve(api.Config{RootfsPath: tt.rootfs, KernelPath: tt.kernel}, false)
		if err == nil {
			cfg = cfg.WithDefaults()
			src, err = Ensure(t.Context(), images, cfg, src, nil)
		}
		if err != nil || src.ImageDigest != tt.digest || src.KernelID != tt.id {
			t.Errorf("%s, %s: %+v, %v", tt.rootfs, tt.kernel, src, err)
			continue
		}
		b, err := Prepare(t.Context(), images, cfg, src, false, []byte("agent"))
		if err != nil {
			t.Errorf("%s, %s: %v", tt.rootfs, tt.kernel, err)
			continue
		}
		if len(b.Lease.Files()) != tt.held || (b.Modules != "") != tt.modules || b.Initrd == "" || b.Kernel == "" || b.KernelName == "" {
			t.Errorf("%s, %s: %d held, %+v", tt.rootfs, tt.kernel, len(b.Lease.Files()), b)
		}
		_ = b.Lease.Close()
	}
}

// TestChanged: a disk goes with the root file system that it was made over; a VM that never ran takes what is there.
func TestChanged(t *testing.T) {
	images, img, _, dir := cache(t)
	fs := read(t, img.Path)
	path := write(t, filepath.Join(dir, "own", "rootfs.ext4"), fs)
	cfg, src, err := Resolve(api.Config{RootfsPath: path}, false)
	if err == nil {
		src, err = Ensure(t.Context(), images, cfg, src, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	prepare := func(fresh bool) error {
		b, err := Prepare(t.Context(), images, cfg, src, fresh, []byte("agent"))
		if err == nil {
			err = b.Lease.Close()
		}
		return err
	}
	if err := prepare(false); err != nil {
		t.Fatal(err)
	}
	write(t, path, edited(fs, 1024+0x30, 1, 2, 3, 4)) // the time of the last write
	if err := prepare(false); !errdefs.Is(err, errdefs.Image) || !strings.Contains(err.Error(), "has changed") {
		t.Errorf("another one: %v", err)
	}
	if err := prepare(true); err != nil {
		t.Errorf("never ran: %v", err)
	}
	write(t, path, fs[:len(fs)/2])
	if err := prepare(true); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("half of it: %v", err)
	}
	other := write(t, filepath.Join(dir, "other"), fs)
	if err := errors.Join(os.Remove(path), os.Symlink(other, path)); err != nil {
		t.Fatal(err)
	}
	if err := prepare(true); err == nil || !strings.Contains(err.Error(), "leads to") {
		t.Errorf("a link: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := prepare(true); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("nothing: %v", err)
	}
}

// TestBuild: ten at once get the same, which takes no room; what is damaged is laid out again; what is held stays.
func TestBuild(t *testing.T) {
	images, img, kernel, _ := cache(t)
	req := api.SSHImageRequest{SSHPublicKey: "  " + key + " me\n", Name: "mine", RootfsSizeMiB: 4096}
	var all sync.WaitGroup
	got := make([]api.SSHImage, 10)
	for i := range got {
		all.Go(func() {
			var err error
			if got[i], err = Build(t.Context(), images, req, nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, g := range got {
		if g != got[0] || g.KernelPath != kernel.Path || !same(g.RootfsPath, img.Path) {
			t.Fatalf("%+v", g)
		}
	}
	dir := filepath.Dir(got[0].RootfsPath)
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) != 1 || !strings.HasPrefix(entries[0].Name(), "mine-") {
		t.Errorf("%v, %v", entries, err)
	}
	for _, damage := range []func() error{
		func() error { return os.Remove(filepath.Join(dir, FactsFile)) },
		func() error { return os.Remove(got[0].RootfsPath) },
		func() error {
			return errors.Join(os.Remove(got[0].RootfsPath), os.WriteFile(got[0].RootfsPath, make([]byte, img.SizeBytes), 0o444)) //nolint:gosec // as ours
		},
		func() error { return os.RemoveAll(dir) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if again, err := Build(t.Context(), images, req, nil); err != nil || again != got[0] || !same(again.RootfsPath, img.Path) {
			t.Errorf("%+v, %v", again, err)
		}
	}
	for _, other := range []api.SSHImageRequest{{SSHPublicKey: key, Name: "mine", RootfsSizeMiB: 4096}, {SSHPublicKey: req.SSHPublicKey, Name: "mine"}, {SSHPublicKey: req.SSHPublicKey, RootfsSizeMiB: 4096}} {
		if g, err := Build(t.Context(), images, other, nil); err != nil || g.RootfsPath == got[0].RootfsPath {
			t.Errorf("%+v: %+v, %v", other, g, err)
		}
	}
	for _, bad := range []api.SSHImageRequest{{}, {SSHPublicKey: "x"}, {SSHPublicKey: key + "\n" + key}, {SSHPublicKey: key, Name: "../x"}, {SSHPublicKey: key, RootfsSizeMiB: 1}, {SSHPublicKey: key, RootfsSizeMiB: -1}} {
		if g, err := Build(t.Context(), images, bad, nil); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("%+v: %+v, %v", bad, g, err)
		}
	}
	held, err := images.Hold(image.Held{Built: filepath.Base(dir)})
	if err != nil {
		t.Fatal(err)
	}
	if err := images.RemoveBuilt(t.Context(), filepath.Base(dir)); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("held: %v", err)
	}
	_ = held.Close()
	if err := images.RemoveBuilt(t.Context(), filepath.Base(dir)); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"", "..", "../../x", "names", ".new-x-0123456789abcdef"} {
		if err := images.RemoveBuilt(t.Context(), name); !errdefs.Is(err, errdefs.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if list, err := List(images); err != nil || len(list) != 3 || list[0].Image != img.Digest {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestLinkCopies: where no other name can be given, a copy is as good.
func TestLinkCopies(t *testing.T) {
	shm, err := os.MkdirTemp("/dev/shm", "smolvm-test-") //nolint:usetesting // another file system is meant
	if err != nil {
		t.Skip("there is no other file system here")
	}
	t.Cleanup(func() { _ = os.RemoveAll(shm) })
	from, to := write(t, filepath.Join(t.TempDir(), "from"), []byte("text")), filepath.Join(shm, "to")
	if err := link(from, to); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(to); err != nil || st.Mode().Perm() != 0o444 || string(read(t, to)) != "text" {
		t.Errorf("%v, %v", st, err)
	}
}

func FuzzCheckExt4(f *testing.F) {
	f.Add(make([]byte, 4096), int64(4096))
	f.Fuzz(func(_ *testing.T, head []byte, size int64) { _ = checkExt4(head, size, nil) })
}

func FuzzCheckKernel(f *testing.F) {
	f.Add(vmlinux())
	f.Fuzz(func(_ *testing.T, b []byte) { _ = checkKernel(b, int64(len(b)), strings.NewReader(string(b))) })
}
