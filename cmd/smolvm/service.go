package main

import (
	"context"
	"os"
	"runtime"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/budget"
	"github.com/smolvm/smolvm/internal/cli"
	"github.com/smolvm/smolvm/internal/doctor"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/bootfile"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/prune"
	"github.com/smolvm/smolvm/internal/server/images"
	"github.com/smolvm/smolvm/internal/sys/cacert"
	"github.com/smolvm/smolvm/internal/wire"
)

// The control sockets' protocol that this program speaks.
const (
	protocolMin = 1
	protocolMax = 5
)

func programVersion() api.Version {
	return api.Version{
		Version: version, Commit: commit, AgentDigest: agentDigest, Go: runtime.Version(),
		ProtocolMin: protocolMin, ProtocolMax: protocolMax,
	}
}

// open makes the service behind the commands. Only what boots VMs needs the agent.
func open(o cli.OpenOptions) (cli.Service, error) {
	images, err := wire.Images(o.Home, version, o.Log)
	if err != nil {
		return cli.Service{}, err
	}
	m, err := manager(o, images)
	if err != nil {
		return cli.Service{}, err
	}
	return cli.Service{VMs: cli.Lifecycle(m), Images: store{images}, Pruner: prune.Pruner{VMs: m, Images: images}}, nil
}

func manager(o cli.OpenOptions, images *image.Store) (*lifecycle.Manager, error) {
	var agent []byte
	if o.Boots {
		var err error
		if agent, err = guestAgent(agentFiles, agentDigest); err != nil {
			return nil, err
		}
	}
	room, err := budget.FromEnv(os.Getenv)
	if err != nil {
		return nil, err
	}
	return lifecycle.New(lifecycle.Options{
		Home: o.Home, Engines: wire.Engines(o.Home, o.Log), Images: images, Agent: agent, Version: programVersion(), Budget: room, Roots: cacert.Host(os.Getenv), Log: o.Log,
	})
}

// examine is `smolvm doctor`.
func examine(ctx context.Context, o cli.OpenOptions) ([]api.Check, error) {
	images, err := wire.Images(o.Home, version, o.Log)
	if err != nil {
		return nil, err
	}
	m, err := manager(o, images)
	if err != nil {
		return nil, err
	}
	mirrors, err := wire.Mirrors()
	if err != nil {
		return nil, err
	}
	_, agentErr := guestAgent(agentFiles, agentDigest)
	return doctor.Run(ctx, m, doctor.Options{Home: o.Home, Mirrors: mirrors, AgentErr: agentErr}), nil
}

// store is the image cache as the commands want it.
type store struct{ *image.Store }

// Build makes the image and the kernel.
func (s store) Build(ctx context.Context, b cli.ImageBuild) (api.Image, error) {
	return s.Make(ctx, images.Build{Name: b.Name, Refresh: b.Refresh, Include: b.Include}, b.Progress)
}

// Make does so for the HTTP API.
func (s store) Make(ctx context.Context, b images.Build, progress api.ProgressFunc) (api.Image, error) {
	if _, err := s.EnsureKernel(ctx, b.Refresh, progress); err != nil {
		return api.Image{}, err
	}
	return s.Ensure(ctx, b.Name, image.EnsureOptions{Refresh: b.Refresh, Include: b.Include, Progress: progress})
}

// BuildSSH lays out the default image for logins with a key.
func (s store) BuildSSH(ctx context.Context, r api.SSHImageRequest, progress api.ProgressFunc) (api.SSHImage, error) {
	return bootfile.Build(ctx, s.Store, r, progress)
}
