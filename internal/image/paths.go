package image

import (
	"path/filepath"
	"regexp"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// What lies in the directory of a kernel. A KernelSource makes the first three.
const (
	KernelFile    = "vmlinux"
	ModulesFile   = "modules.ext4" // mounted at /usr/lib/modules/RELEASE
	InitrdModules = "initrd"       // directory: module files, and "list" with their load order
	initrdPrefix  = "initramfs-"
)

// What lies in the directory of an image.
const (
	rootfsFile = "rootfs.ext4"
	sbomFile   = "sbom.json"
)

// In both, the manifest is written last and says what belongs there.
const manifestFile = "manifest.json"

// tempPrefix begins the name of a directory that is still being made. Whoever holds the build lock may remove those.
const tempPrefix = ".new-"

var (
	nameRule   = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)
	digestRule = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	// Of a name, and a digest that says what was asked for.
	builtRule  = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?-[0-9a-f]{16}$`)
	kernelRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+_-]{0,150}$`)
)

func (s *Store) imagesDir() string          { return filepath.Join(s.opts.Home, "images") }
func (s *Store) kernelsDir() string         { return filepath.Join(s.opts.Home, "kernels") }
func (s *Store) namesDir() string           { return filepath.Join(s.imagesDir(), "names") }
func (s *Store) imageDir(hex string) string { return filepath.Join(s.imagesDir(), hex) }
func (s *Store) kernelDir(id string) string { return filepath.Join(s.kernelsDir(), id) }
func (s *Store) pinFile() string            { return filepath.Join(s.kernelsDir(), "pinned") }

// BuiltDir is where root file systems are laid out for those who name them by their path, each in a directory of its own.
func (s *Store) BuiltDir() string { return filepath.Join(s.imagesDir(), "built") }

func (s *Store) lockFile(name string) string {
	return filepath.Join(s.opts.Home, "locks", name)
}

func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// CheckName refuses what cannot name an image.
func CheckName(name string) error { return checkName(name) }

func checkName(name string) error {
	if !nameRule.MatchString(name) {
		return errdefs.Invalid.Errorf("image name %q: lower case letters, digits, dot, underscore and dash are meant", name)
	}
	return nil
}
