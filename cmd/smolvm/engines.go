package main

import (
	"context"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli"
	"github.com/smolvm/smolvm/internal/cli/engines"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/wire"
)

// engineService is what `smolvm engine` works with.
type engineService struct {
	*lifecycle.Manager
	home string
}

// openEngines makes it. err is the options' own.
func openEngines(o cli.OpenOptions, err error) (engines.Service, error) {
	if err != nil {
		return nil, err
	}
	images, err := wire.Images(o.Home, version, o.Log)
	if err != nil {
		return nil, err
	}
	m, err := manager(o, images)
	return engineService{m, o.Home}, err
}

// Install implements engines.Service.
func (e engineService) Install(ctx context.Context, i api.EngineInstall, progress api.ProgressFunc) (api.InstalledEngine, error) {
	return wire.InstallEngine(ctx, e.home, i, progress)
}
