package server

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/sockpath"
)

// answering is a supervisor in a directory until its end.
func answering(t *testing.T, dir string, hold <-chan struct{}) (end func()) {
	t.Helper()
	d, err := sockpath.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Listen("s")
	if err != nil {
		t.Fatal(err)
	}
	s := rpc.NewServer(t.Context(), rpc.Hello{ID: "web"}, slog.New(slog.DiscardHandler))
	rpc.Handle(s, rpc.RoutePing, func(context.Context, rpc.Nothing) (rpc.PingResponse, error) {
		t.Error("the guest was asked")
		return rpc.PingResponse{}, nil
	})
	rpc.Handle(s, rpc.RouteSync, func(context.Context, rpc.Nothing) (rpc.Nothing, error) {
		<-hold
		return rpc.Nothing{}, nil
	})
	rpc.Handle(s, rpc.RouteProcs, func(context.Context, rpc.Nothing) (rpc.ProcessesResponse, error) {
		return rpc.ProcessesResponse{Processes: []api.Process{}}, nil
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	end = sync.OnceFunc(func() {
		_ = s.Close()
		<-done
		_ = d.Close()
	})
	t.Cleanup(end)
	return end
}

// TestGuests: one connection is kept and given to all without asking the guest, more are made when it is full, and one that has
// ended is followed by another at once.
func TestGuests(t *testing.T) {
	dir, hold := t.TempDir(), make(chan struct{})
	end := answering(t, dir, hold)
	var made atomic.Int32
	g := newGuests(func(ctx context.Context, _ string) (lifecycle.Guest, error) {
		made.Add(1)
		return rpc.Dial(ctx, dir, "s")
	})
	defer g.close()
	use := func() error {
		c, release, err := g.take(t.Context(), "web")
		if err != nil {
			return err
		}
		defer release()
		_, err = c.Processes(t.Context())
		return err
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := use(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("%d connections for 50 users", made.Load())
	}
	// 400 calls that last: more than one connection takes, and another call finds room beside them.
	for range 400 {
		wg.Go(func() {
			c, release, err := g.take(t.Context(), "web")
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			if err := c.Sync(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	for begun := time.Now(); made.Load() < 4 && time.Since(begun) < 20*time.Second; {
		time.Sleep(10 * time.Millisecond)
	}
	if err := use(); err != nil {
		t.Error(err)
	}
	close(hold)
	wg.Wait()
	g.mu.Lock()
	kept := len(g.open["web"])
	g.mu.Unlock()
	if kept != 1 {
		t.Errorf("%d connections are kept for nobody", kept)
	}
	end()
	for begun := time.Now(); time.Since(begun) < 10*time.Second; time.Sleep(5 * time.Millisecond) {
		g.mu.Lock()
		kept = len(g.open["web"])
		g.mu.Unlock()
		if kept == 0 {
			break
		}
	}
	if kept != 0 {
		t.Error("a connection that has ended is kept")
	}
	if err := use(); err == nil {
		t.Error("nobody answers")
	}
	answering(t, dir, hold)
	if err := use(); err != nil {
		t.Errorf("anew: %v", err)
	}
}

// TestUnsent: a call on a connection that has ended says that nothing of it was sent, one that was under way does not.
func TestUnsent(t *testing.T) {
	dir, hold := t.TempDir(), make(chan struct{})
	end := answering(t, dir, hold)
	c, err := rpc.Dial(t.Context(), dir, "s")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	failed := make(chan error, 1)
	go func() { failed <- c.Sync(t.Context()) }()
	time.Sleep(100 * time.Millisecond)
	close(hold)
	if err := <-failed; err != nil {
		t.Error(err)
	}
	end()
	<-c.Gone()
	if c.Usable() {
		t.Error("an ended connection is usable")
	}
	if err := c.Sync(t.Context()); err == nil || !lifecycle.Unsent(err) {
		t.Errorf("%v", err)
	}
}
