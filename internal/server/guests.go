package server

import (
	"context"
	"sync"

	"github.com/smolvm/smolvm/internal/lifecycle"
)

// guests keeps the connections to supervisors, so that a command does not begin with making one.
type guests struct {
	connect func(ctx context.Context, id string) (lifecycle.Guest, error)

	mu   sync.Mutex
	open map[string]*guest
}

type guest struct {
	lifecycle.Guest
	users int
	gone  bool // closed by its last user
}

func newGuests(connect func(context.Context, string) (lifecycle.Guest, error)) *guests {
	return &guests{connect: connect, open: map[string]*guest{}}
}

// take returns the way into a VM. release gives it back.
func (g *guests) take(ctx context.Context, id string) (_ lifecycle.Guest, release func(), _ error) {
	g.mu.Lock()
	there := g.open[id]
	if there != nil {
		there.users++
	}
	g.mu.Unlock()
	if there != nil {
		if _, err := there.Ping(ctx); err == nil {
			return there.Guest, func() { g.release(id, there) }, nil
		}
		g.drop(id, there)
		g.release(id, there)
	}
	c, err := g.connect(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	fresh := &guest{Guest: c, users: 1}
	g.mu.Lock()
	if old := g.open[id]; old == nil {
		g.open[id] = fresh
	} else {
		fresh.gone = true // another request was faster; this one is for this request only
	}
	g.mu.Unlock()
	return c, func() { g.release(id, fresh) }, nil
}

// drop has the connection closed once nobody uses it.
func (g *guests) drop(id string, which *guest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	which.gone = true
	if g.open[id] == which {
		delete(g.open, id)
	}
}

func (g *guests) release(_ string, which *guest) {
	g.mu.Lock()
	which.users--
	closing := which.gone && which.users == 0
	g.mu.Unlock()
	if closing {
		_ = which.Close()
	}
}

func (g *guests) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, which := range g.open {
		delete(g.open, id)
		which.gone = true
		if which.users == 0 {
			_ = which.Close()
		}
	}
}
