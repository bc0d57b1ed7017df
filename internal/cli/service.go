package cli

import (
	"context"
	"io"
	"log/slog"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli/change"
	"github.com/smolvm/smolvm/internal/cli/images"
	"github.com/smolvm/smolvm/internal/cli/network"
	"github.com/smolvm/smolvm/internal/cli/port"
	"github.com/smolvm/smolvm/internal/cli/procs"
	"github.com/smolvm/smolvm/internal/cli/session"
	"github.com/smolvm/smolvm/internal/cli/tidy"
	"github.com/smolvm/smolvm/internal/cli/transfer"
	"github.com/smolvm/smolvm/internal/cli/watch"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// Service is what the commands work with.
type Service struct {
	VMs    VMs
	Images Images
	Pruner tidy.Pruner
}

// OpenOptions say what a command needs of the Service.
type OpenOptions struct {
	Home  string // $SMOLVM_HOME, absolute
	Boots bool   // it may boot VMs, so the guest agent must be there
	Log   *slog.Logger
}

// VMs is what the commands need of lifecycle.Manager.
type VMs interface {
	Lives
	Viewer
	Pauser
	Networks
	// Connect returns the way into a running VM. The caller closes it.
	Connect(ctx context.Context, id string) (Guest, error)
}

// Networks says what VMs reach, and what reaches them.
type Networks interface {
	network.VMs
	SetSecrets(ctx context.Context, id string, change api.SecretChange) error
	port.Publisher
}

// Lives makes, starts, stops and removes VMs.
type Lives interface {
	Create(ctx context.Context, cfg api.Config, o lifecycle.CreateOptions) (api.Sandbox, error)
	StartWith(ctx context.Context, id string, values api.SecretValues, progress api.ProgressFunc) (api.Sandbox, error)
	Stop(ctx context.Context, id string, o lifecycle.StopOptions) error
	Remove(ctx context.Context, id string, force bool) error
	SetOwner(ctx context.Context, id string, owner api.Owner) error
}

// Viewer tells what there is.
type Viewer interface {
	watch.VMs
	List(ctx context.Context, all bool) ([]api.Sandbox, error)
	Inspect(ctx context.Context, id string, showEnv bool) (api.Sandbox, error)
	Logs(ctx context.Context, id string, kind lifecycle.LogKind, follow bool, w io.Writer) error
}

// Pauser stops a VM's processors and lets them go on, and changes what does not run.
type Pauser interface {
	change.VMs
	SetEnv(ctx context.Context, id string, change api.EnvChange) (map[string]string, error)
	Pause(ctx context.Context, id string) error
	Unpause(ctx context.Context, id string) error
}

// Guest is the way into a running VM.
type Guest interface {
	Runner
	procs.Guest
	transfer.Files
	port.Guest
}

// Runner runs commands in a VM.
type Runner interface {
	session.Runner
	StartDetached(ctx context.Context, req api.ExecRequest) (api.ProcessInfo, error)
}

// Images is the cache of images.
type Images = images.Store

// ImageBuild says which image to make.
type ImageBuild = images.Build

// manager is a lifecycle.Manager as VMs.
type manager struct{ *lifecycle.Manager }

// Lifecycle returns m as the commands want it.
func Lifecycle(m *lifecycle.Manager) VMs { return manager{m} }

// Connect implements VMs.
func (m manager) Connect(ctx context.Context, id string) (Guest, error) {
	g, err := m.Manager.Connect(ctx, id)
	if err != nil {
		return nil, err // not g: a nil pointer is no nil interface
	}
	return g, nil
}
