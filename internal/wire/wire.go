// Package wire is the one list of what is in this program: its engines, its image builders and its source of kernels.
//
// Layer: wiring, for cmd/smolvm and tests only. It may import engine/*, image/*, errdefs, internal/sys.
package wire

import (
	"log/slog"
	"os"

	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/qemu"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/apt"
	"github.com/smolvm/smolvm/internal/image/debian"
	"github.com/smolvm/smolvm/internal/image/kernel"
)

// mirrorVar names the environment variable with another mirror than Debian's own.
const mirrorVar = "SMOLVM_DEBIAN_MIRROR"

// Engines returns the engines, best first.
func Engines(log *slog.Logger) *engine.Registry {
	r := &engine.Registry{}
	r.MustAdd(qemu.New(qemu.Options{Log: log}))
	return r
}

// Images returns the cache of images and kernels below home, with everything that makes them.
func Images(home, version string, log *slog.Logger) (*image.Store, error) {
	archive, err := apt.NewArchive(os.Getenv(mirrorVar))
	if err != nil {
		return nil, err
	}
	return image.New(image.Options{
		Home:     home,
		Builders: []image.Builder{debian.Builder{Archive: archive, Log: log}},
		Kernels:  kernel.Source{Archive: archive, Log: log},
		Version:  version,
		Log:      log,
	}), nil
}

// Mirrors returns the addresses that images and kernels come from.
func Mirrors() ([]string, error) {
	archive, err := apt.NewArchive(os.Getenv(mirrorVar))
	if err != nil {
		return nil, err
	}
	return []string{
		archive.Main + "/dists/" + apt.Suite + "/InRelease",
		archive.Security + "/dists/" + apt.Suite + "-security/InRelease",
	}, nil
}
