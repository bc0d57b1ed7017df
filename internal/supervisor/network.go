package supervisor

import (
	"context"
	"errors"
	"sync"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
)

// policySetter is what runs the VM's network, as far as a change of its policy goes.
type policySetter interface {
	// SetPolicy puts a policy in force: when it returns nil, every decision from then on is made by it, and flows that it
	// does not allow are ended.
	SetPolicy(ctx context.Context, p api.NetworkPolicy) error
}

// policy is the network's policy, and who enforces it.
type policy struct {
	mu      sync.Mutex
	now     api.NetworkPolicy
	gateway policySetter // nil before it runs
}

// attach gives a gateway that has just started the policy. Until that succeeds, it reaches nothing.
func (p *policy) attach(ctx context.Context, g policySetter) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := g.SetPolicy(ctx, p.now); err != nil {
		return err
	}
	p.gateway = g
	return nil
}

// set changes the policy: save keeps it, then the gateway gets it. On an error, both have the former one.
func (p *policy) set(ctx context.Context, to api.NetworkPolicy, save func(api.NetworkPolicy) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := save(to); err != nil {
		return err
	}
	if p.gateway != nil {
		if err := p.gateway.SetPolicy(ctx, to); err != nil {
			// It may have got it although it did not say so. What is kept and what is wanted of the gateway, whichever
			// runs from now on, are the same again.
			_ = p.gateway.SetPolicy(context.WithoutCancel(ctx), p.now)
			return errors.Join(err, save(p.now))
		}
	}
	p.now = to
	return nil
}

// setNetwork changes the network's policy.
func (s *supervisor) setNetwork(ctx context.Context, r rpc.NetworkRequest) (rpc.Nothing, error) {
	to := r.Policy.WithDefaults()
	if _, err := network.Compile(to, network.Options{SecretHosts: s.secrets.Hosts()}); err != nil {
		return rpc.Nothing{}, err
	}
	err := s.policy.set(ctx, to, func(p api.NetworkPolicy) error { return s.store.SavePolicy(s.id, p) })
	if err == nil {
		s.note(api.Event{Type: "network", Reason: to.String()})
	}
	return rpc.Nothing{}, err
}

// setSecrets changes the values of secrets, and where they are found at the next start.
func (s *supervisor) setSecrets(ctx context.Context, c api.SecretChange) (rpc.Nothing, error) {
	if err := s.ready(); err != nil {
		return rpc.Nothing{}, err
	}
	err := s.secrets.Change(ctx, c, s.uplink, func() (func() error, error) { return s.store.ChangeSecrets(ctx, s.id, c) })
	if err == nil {
		s.note(api.Event{Type: "secrets", Reason: c.String()})
	}
	return rpc.Nothing{}, err
}
