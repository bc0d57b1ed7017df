// Package wire is the one list of what is in this program: its engines, its image builders and its source of kernels.
//
// Layer: wiring, for cmd/smolvm and tests only. It may import engine/*, image/*, api, errdefs, internal/sys.
package wire

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/firecracker"
	"github.com/smolvm/smolvm/internal/engine/firecracker/release"
	"github.com/smolvm/smolvm/internal/engine/qemu"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/apt"
	"github.com/smolvm/smolvm/internal/image/debian"
	"github.com/smolvm/smolvm/internal/image/kernel"
)

// mirrorVar names the environment variable with another mirror than Debian's own.
const mirrorVar = "SMOLVM_DEBIAN_MIRROR"

// Engines returns the engines, best first. Those that were installed lie below home.
func Engines(home string, log *slog.Logger) *engine.Registry {
	r := &engine.Registry{}
	r.MustAdd(firecracker.New(firecracker.Options{Dir: firecrackerDir(home), Log: log}))
	r.MustAdd(qemu.New(qemu.Options{Log: log}))
	return r
}

func firecrackerDir(home string) string { return filepath.Join(home, "engines", "firecracker") }

// InstallEngine fetches a release of an engine's program, or takes it from a file.
func InstallEngine(ctx context.Context, home string, i api.EngineInstall, progress api.ProgressFunc) (api.InstalledEngine, error) {
	if i.Name != "firecracker" {
		return api.InstalledEngine{}, errdefs.Invalid.Errorf("engine %q: only firecracker is installed by SmolVM; the host's package manager has the others", i.Name)
	}
	m, err := release.Install(ctx, release.Options{
		Dir: firecrackerDir(home), Version: i.Version, From: i.From, SHA256: i.SHA256, Site: os.Getenv("SMOLVM_FIRECRACKER_SITE"),
		Progress: func(done, total int64) {
			if progress != nil {
				progress(api.Progress{Stage: "engine", Detail: "fetch Firecracker", Done: done, Total: total})
			}
		},
	})
	return api.InstalledEngine{Name: i.Name, Version: m.Version, Path: m.Path, Source: m.Source, SHA256: m.SHA256, Files: m.Files}, err
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
