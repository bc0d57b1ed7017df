// Package keyring holds the secrets of a VM that runs, with their values: in memory, for its gateways.
//
// Layer: part of supervisor. It may import network/secret, api, errdefs.
package keyring

import (
	"context"
	"errors"
	"sync"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network/secret"
)

// Setter is who puts values into requests.
type Setter interface {
	// SetSecrets puts other secrets in place of all there were; on an error the former ones are in use.
	SetSecrets(ctx context.Context, list []secret.Secret) error
}

// Ring is one VM's.
type Ring struct {
	mu   sync.Mutex
	list []secret.Secret
}

// New makes the ring of the VM id. Every secret needs a value.
func New(id string, list []api.Secret, values api.SecretValues) (*Ring, error) {
	all, err := secret.Match(id, list, values)
	return &Ring{list: all}, err
}

// Attach gives them to a gateway that has just started. A policy that names their hosts comes after them.
func (r *Ring) Attach(ctx context.Context, to Setter) error {
	if len(r.list) == 0 {
		return nil
	}
	return to.SetSecrets(ctx, r.list)
}

// All are the secrets as they are now.
func (r *Ring) All() []secret.Secret {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list
}

// Hosts are the names that they are for, which never change.
func (r *Ring) Hosts() []string {
	s, err := secret.New(r.All())
	if err != nil {
		return nil // they were looked at before
	}
	return s.Hosts()
}

// Change gives secrets other values: save keeps what is to be kept of the change, to puts the values to use. On an error, back
// undoes save.
func (r *Ring) Change(ctx context.Context, c api.SecretChange, to Setter, save func() (back func() error, err error)) error {
	if err := c.Validate(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	next, err := secret.Rotate(r.list, c.Values)
	if err != nil {
		return err
	}
	back, err := save()
	if err != nil || len(c.Values) == 0 {
		return err
	}
	if err := to.SetSecrets(ctx, next); err != nil {
		return errors.Join(err, back())
	}
	r.list = next
	return nil
}
