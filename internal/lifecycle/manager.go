// Package lifecycle creates, starts, stops, deletes and recovers VMs. It spawns supervisors, and before it does anything it
// reconciles the VM that it touches with what is really running. Which state may follow which is store's one table.
//
// Layer: between the fronts (cli, server) and supervisor/rpc, image, store, engine.
package lifecycle

import (
	"context"
	"log/slog"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/budget"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/cacert"
)

// Guest is the way into a running VM: commands, files, metrics. It is safe for concurrent use.
type Guest = *rpc.Client

// Unsent reports whether a call to a Guest failed before anything of it was sent, so that it can be made again.
func Unsent(err error) bool { return rpc.Unsent(err) }

// ExecIO joins a command to its caller's streams.
type ExecIO = rpc.ExecIO

// AttachIO joins a caller to a command that was started before.
type AttachIO = rpc.AttachIO

// Options are what a Manager works with.
type Options struct {
	Home    string // $SMOLVM_HOME
	Engines *engine.Registry
	Images  *image.Store
	Agent   []byte // the guest agent's program
	Version api.Version
	Budget  budget.Budget
	Roots   cacert.Sources // where the host's own certificate authorities are, for the guests
	Log     *slog.Logger
}

// Manager is the service behind every front.
type Manager struct {
	opts  Options
	store *store.Store
	log   *slog.Logger
}

// New returns a Manager on opts.Home, which is made when it is first written to.
func New(opts Options) (*Manager, error) {
	st, err := store.New(opts.Home)
	if err != nil {
		return nil, err
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Manager{opts: opts, store: st, log: opts.Log}, nil
}

// CreateOptions say how a VM is created.
type CreateOptions struct {
	Owner    api.Owner // OwnerClient: bound to ClientPID (default: this process)
	Client   int
	Lease    time.Duration // of OwnerLease; 0 = a minute
	Progress api.ProgressFunc
	// Start says that the VM is to be started next: ports that are taken are refused now, before anything is made.
	Start bool
	// Secrets are values of the VM's secrets: Launch starts it with them, Create makes placeholders of their lengths.
	Secrets api.SecretValues
}

// rule is what they ask for of the owner.
func (o CreateOptions) rule() api.OwnerRequest {
	r := api.OwnerRequest{Owner: o.Owner, LeaseMs: o.Lease.Milliseconds()}
	if o.Owner == api.OwnerClient {
		r.ClientPID = o.Client
	}
	return r
}

// StopOptions say how a VM is stopped.
type StopOptions struct {
	Grace time.Duration // for the guest's orderly end; 0 = 10 s
	Kill  bool          // no orderly end
}

// defaultGrace is what a guest gets for its orderly end.
const defaultGrace = 10 * time.Second

// Launch creates a VM, starts it and returns the way into it. When one of the steps fails, nothing of the VM is left.
func (m *Manager) Launch(ctx context.Context, cfg api.Config, o CreateOptions) (api.Sandbox, Guest, error) {
	box, err := m.Create(ctx, cfg, o)
	if err != nil {
		return api.Sandbox{}, nil, err
	}
	var guest Guest
	started, err := m.StartWith(ctx, box.ID, o.Secrets, o.Progress)
	if err == nil {
		guest, err = m.Connect(ctx, box.ID)
	}
	if err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
		defer cancel()
		if rerr := m.Remove(clean, box.ID, true); rerr != nil {
			m.log.Warn("the VM that did not start stays", "vm", box.ID, "error", rerr)
		}
		return api.Sandbox{}, nil, err
	}
	return started, guest, nil
}

// cleanup bounds what is done after a failure or a cancel.
const cleanup = 30 * time.Second
