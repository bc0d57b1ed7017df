// Package relay answers what a control socket asks of the guest: it keeps the link to the agent, makes it anew when it was
// lost, and turns the agent's answers, which are not trusted, into the API's, bounded.
//
// Layer: part of supervisor. It may import guest/client, guest/proto, supervisor/rpc, api, errdefs, internal/sys.
package relay

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/guest/client"
)

// Options are what a relay asks of the supervisor around it.
type Options struct {
	ID string
	// Ready refuses while the VM's state lets no command through.
	Ready func() error
	// Ended tells how the VM ended, if it has or is just about to.
	Ended func() (reason string, ended bool)
	// Output is the log of the main command.
	Output func() (io.Writer, error)
	// MainEnded is told of the main command's end.
	MainEnded func(api.Event)
}

// Relay is the way to one guest. It is safe for concurrent use.
type Relay struct {
	opts   Options
	redial sync.Mutex // one makes a new link at a time

	mu    sync.Mutex
	guest *client.Client // nil before the guest has booted and after its end
	dial  client.Dialer
}

// New returns a relay without a guest.
func New(o Options) *Relay { return &Relay{opts: o} }

// Attach gives the relay its guest, and how to reach it again.
func (r *Relay) Attach(guest *client.Client, dial client.Dialer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.guest, r.dial = guest, dial
}

// Close ends the link; there is no other one after it.
func (r *Relay) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.guest != nil {
		_ = r.guest.Close()
	}
	r.guest, r.dial = nil, nil
}

// Shutdown has the agent end everything and switch off. grace is for the commands.
func (r *Relay) Shutdown(ctx context.Context, grace time.Duration) error {
	guest, _, err := r.link()
	if err != nil {
		return err
	}
	if err := guest.Shutdown(ctx, grace); err != nil {
		return err
	}
	return guest.Close() // the agent waits for that, so that its answer arrives
}

// envWait bounds how long a guest may take to a change of its environment, in which its SSH service begins anew.
const envWait = 30 * time.Second

// SetEnv replaces the environment of the guest's commands.
func (r *Relay) SetEnv(ctx context.Context, env map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, envWait)
	defer cancel()
	guest, err := r.agent(ctx)
	if err != nil {
		return err
	}
	return r.lost(guest.SetEnv(ctx, env))
}

// relink bounds the making of a new link to a guest that was there before.
const relink = 10 * time.Second

// agent returns the link to the guest, made anew when it was lost.
func (r *Relay) agent(ctx context.Context) (*client.Client, error) {
	if err := r.opts.Ready(); err != nil {
		return nil, err
	}
	guest, _, err := r.link()
	if err != nil || !lost(guest) {
		return guest, err
	}
	r.redial.Lock()
	defer r.redial.Unlock()
	guest, dial, err := r.link()
	if err != nil || !lost(guest) { // another one has made it
		return guest, err
	}
	ctx, cancel := context.WithTimeout(ctx, relink)
	defer cancel()
	fresh, err := client.New(ctx, dial)
	if err != nil {
		return nil, r.lost(errdefs.Unavailable.Errorf("the guest's agent does not answer: %w", err).
			WithRemedy("smolvm logs --console %s", r.opts.ID))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.guest == nil {
		_ = fresh.Close()
		return nil, r.gone()
	}
	_ = r.guest.Close()
	r.guest = fresh
	return fresh, nil
}

func (r *Relay) link() (*client.Client, client.Dialer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.guest == nil {
		return nil, nil, r.gone()
	}
	return r.guest, r.dial, nil
}

func (r *Relay) gone() error {
	return errdefs.Unavailable.Errorf("the VM %s has ended", r.opts.ID).WithRemedy("smolvm inspect %s", r.opts.ID)
}

func lost(c *client.Client) bool {
	select {
	case <-c.Gone():
		return true
	default:
		return false
	}
}
