// Package lifecycle creates, starts, stops, deletes and recovers VMs. It owns the state table, spawns supervisors and
// reconciles every VM that it touches with what is really running.
//
// Layer: between the fronts (cli, server) and supervisor/rpc, image, store, engine.
package lifecycle

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
)

// Guest is the way into a running VM: commands, files, metrics. It is safe for concurrent use.
type Guest = *rpc.Client

// ExecIO joins a command to its caller's streams.
type ExecIO = rpc.ExecIO

// Options are what a Manager works with.
type Options struct {
	Home    string // $SMOLVM_HOME
	Engines *engine.Registry
	Images  *image.Store
	Agent   []byte // the guest agent's program
	Version api.Version
	Log     *slog.Logger
}

// Manager is the service behind every front.
type Manager struct{ opts Options }

// New returns a Manager on opts.Home, which is made when it is first written to.
func New(opts Options) (*Manager, error) { return &Manager{opts: opts}, nil }

// CreateOptions say how a VM is created.
type CreateOptions struct {
	Owner    api.Owner // OwnerClient: bound to ClientPID (default: this process)
	Client   int
	Progress api.ProgressFunc
}

// StopOptions say how a VM is stopped.
type StopOptions struct {
	Grace time.Duration // for the guest's orderly end; 0 = 10 s
	Kill  bool          // no orderly end
}

// LogKind picks one of a VM's logs.
type LogKind string

// The logs of a VM.
const (
	LogOutput  LogKind = "output"  // of the command of `run -d`
	LogConsole LogKind = "console" // of the guest's kernel
)

var errTODO = errdefs.Internal.Errorf("not built yet")

// Create writes the record of a new VM; it is not started. An empty cfg.ID gets a made-up one. The image and the kernel
// are made when they are absent.
func (m *Manager) Create(ctx context.Context, cfg api.Config, o CreateOptions) (api.Sandbox, error) {
	return api.Sandbox{}, errTODO
}

// Start boots a VM and returns when its agent is configured.
func (m *Manager) Start(ctx context.Context, id string, progress api.ProgressFunc) (api.Sandbox, error) {
	return api.Sandbox{}, errTODO
}

// Stop ends a VM; its disk stays. Stopping one that is not running is no error.
func (m *Manager) Stop(ctx context.Context, id string, o StopOptions) error { return errTODO }

// Pause stops the VM's processors.
func (m *Manager) Pause(ctx context.Context, id string) error { return errTODO }

// Unpause lets them go on.
func (m *Manager) Unpause(ctx context.Context, id string) error { return errTODO }

// Remove deletes a VM with its disk. A live one is refused unless force.
func (m *Manager) Remove(ctx context.Context, id string, force bool) error { return errTODO }

// List returns the VMs, sorted by creation; only live ones unless all. Broken records are listed as such.
func (m *Manager) List(ctx context.Context, all bool) ([]api.Sandbox, error) { return nil, errTODO }

// Inspect returns one VM. Env values are masked unless showEnv.
func (m *Manager) Inspect(ctx context.Context, id string, showEnv bool) (api.Sandbox, error) {
	return api.Sandbox{}, errTODO
}

// SetOwner changes who decides that the VM may go; keep is how `run --keep` and `-d` let go of it.
func (m *Manager) SetOwner(ctx context.Context, id string, owner api.Owner) error { return errTODO }

// Connect returns the way into a running VM. The caller closes it.
func (m *Manager) Connect(ctx context.Context, id string) (Guest, error) { return nil, errTODO }

// Logs copies a log to w; with follow it goes on until the VM ends or ctx does.
func (m *Manager) Logs(ctx context.Context, id string, kind LogKind, follow bool, w io.Writer) error {
	return errTODO
}

// Events returns the VM's events, oldest first.
func (m *Manager) Events(ctx context.Context, id string) ([]api.Event, error) { return nil, errTODO }
