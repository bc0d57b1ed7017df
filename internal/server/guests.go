package server

import (
	"context"
	"slices"
	"sync"

	"github.com/smolvm/smolvm/internal/lifecycle"
)

// perConnection bounds the users of one connection: it takes 250 calls at once, and signals must find room beside commands.
const perConnection = 100

// guests keeps the connections to supervisors, so that a command does not begin with making one. Whether one still is good,
// it knows without asking.
type guests struct {
	connect func(ctx context.Context, id string) (lifecycle.Guest, error)

	mu     sync.Mutex
	open   map[string][]*guest
	making map[string]chan struct{} // closed when the connection that is being made is there, or cannot be made
	closed bool
}

type guest struct {
	lifecycle.Guest
	users int
	gone  bool // closed by its last user
}

func newGuests(connect func(context.Context, string) (lifecycle.Guest, error)) *guests {
	return &guests{connect: connect, open: map[string][]*guest{}, making: map[string]chan struct{}{}}
}

// on calls f with the way into a VM, and once more on a fresh connection where the supervisor saw nothing of the first call.
func (g *guests) on(ctx context.Context, id string, f func(lifecycle.Guest) error) error {
	for again := false; ; again = true {
		vm, release, err := g.take(ctx, id)
		if err != nil {
			return err
		}
		err = f(vm)
		release()
		if again || !lifecycle.Unsent(err) {
			return err
		}
	}
}

// take returns the way into a VM. release gives it back.
func (g *guests) take(ctx context.Context, id string) (_ lifecycle.Guest, release func(), _ error) {
	for {
		g.mu.Lock()
		if there := g.room(id); there != nil {
			there.users++
			g.mu.Unlock()
			return there.Guest, func() { g.release(id, there) }, nil
		}
		made := g.making[id]
		if made == nil {
			break
		}
		g.mu.Unlock()
		select {
		case <-made:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
	made := make(chan struct{})
	g.making[id] = made
	g.mu.Unlock()
	c, err := g.connect(ctx, id)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.making, id)
	close(made)
	if err != nil {
		return nil, nil, err
	}
	fresh := &guest{Guest: c, users: 1, gone: g.closed}
	if !g.closed {
		g.open[id] = append(g.open[id], fresh)
		go g.watch(id, fresh)
	}
	return c, func() { g.release(id, fresh) }, nil
}

// room returns a connection that is good and not full.
func (g *guests) room(id string) *guest {
	for _, which := range g.open[id] {
		if which.users < perConnection && which.Usable() {
			return which
		}
	}
	return nil
}

// watch drops a connection that has ended.
func (g *guests) watch(id string, which *guest) {
	<-which.Gone()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drop(id, which)
}

// drop has a connection closed once nobody uses it, which is now or by release.
func (g *guests) drop(id string, which *guest) {
	which.gone = true
	rest := slices.DeleteFunc(g.open[id], func(o *guest) bool { return o == which })
	if g.open[id] = rest; len(rest) == 0 {
		delete(g.open, id)
	}
	if which.users == 0 {
		_ = which.Close()
	}
}

func (g *guests) release(id string, which *guest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	which.users--
	switch {
	case which.users > 0:
	case which.gone:
		_ = which.Close()
	case len(g.open[id]) > 1 || !which.Usable(): // one is kept
		g.drop(id, which)
	}
}

func (g *guests) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for id, all := range g.open {
		for _, which := range slices.Clone(all) {
			g.drop(id, which)
		}
	}
}
