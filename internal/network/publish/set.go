package publish

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// MaxConns is how many connections to a VM's ports are open at once. More wait in the kernel's queues.
const MaxConns = 256

// Options are what a Set works with.
type Options struct {
	// Forward joins a connection with a port of the guest until both have ended, and closes it. seen is told of bytes, those
	// to the guest and those from it.
	Forward func(ctx context.Context, port int, conn *net.TCPConn, seen func(in, out int)) error
	Record  func(api.NetRecord) // is told of each connection at its end
	Active  func()              // is told that something happens
	Crowded func(limit int)     // is told when connections begin to wait
	Log     *slog.Logger
}

// Set is what a running VM publishes. It is safe for concurrent use.
type Set struct {
	opts  Options
	slots chan struct{} // one for each connection that is open

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // the VM's life; nil before it begins
	ports   []*published
	closed  bool
	crowded bool
	all     sync.WaitGroup
}

// published is one port with its listener.
type published struct {
	api.Port
	l   *net.TCPListener
	end context.CancelFunc // of its connections; nil until they are taken
}

// New returns a Set that publishes nothing.
func New(o Options) *Set { return &Set{opts: o, slots: make(chan struct{}, MaxConns)} }

// Adopt takes a listener over that was made for a port. Connections wait until Serve.
func (s *Set) Adopt(l *net.TCPListener, p api.Port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addLocked(&published{Port: p, l: l})
}

func (s *Set) addLocked(p *published) {
	if s.closed {
		_ = p.l.Close()
		return
	}
	s.ports = append(s.ports, p)
	if s.ctx != nil {
		s.serveLocked(p)
	}
}

// Serve takes connections from now on until ctx ends or Close.
func (s *Set) Serve(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx != nil || s.closed {
		return
	}
	s.ctx = ctx
	for _, p := range s.ports {
		s.serveLocked(p)
	}
}

func (s *Set) serveLocked(p *published) {
	var ctx context.Context
	ctx, p.end = context.WithCancel(s.ctx)
	s.all.Go(func() {
		stop := context.AfterFunc(ctx, func() { _ = p.l.Close() })
		defer stop()
		s.accept(ctx, p)
	})
}

// Ports are those that are published.
func (s *Set) Ports() []api.Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.portsLocked()
}

func (s *Set) portsLocked() []api.Port {
	ports := []api.Port{}
	for _, p := range s.ports {
		ports = append(ports, p.Port)
	}
	return ports
}

// Add publishes one more port, once save has kept the list with it, and returns it with its number. On an error nothing has
// changed.
func (s *Set) Add(ctx context.Context, p api.Port, save func([]api.Port) error) (api.Port, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return p, errdefs.WrongState.Errorf("the VM is stopping")
	}
	if _, err := Added(s.portsLocked(), p); err != nil {
		return p, err
	}
	l, p, err := Listen(ctx, p)
	if err != nil {
		return p, err
	}
	if err := save(append(s.portsLocked(), p)); err != nil {
		_ = l.Close()
		return p, err
	}
	s.addLocked(&published{Port: p, l: l})
	return p, nil
}

// Remove ends a port that is published, named as api.SelectPort does it, and its connections, once save has kept the list
// without it.
func (s *Set) Remove(which api.Port, save func([]api.Port) error) (api.Port, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, err := api.SelectPort(s.portsLocked(), which)
	if err != nil {
		return which, err
	}
	p := s.ports[at]
	if err := save(slices.Delete(s.portsLocked(), at, at+1)); err != nil {
		return p.Port, err
	}
	s.ports = slices.Delete(s.ports, at, at+1)
	p.close()
	return p.Port, nil
}

func (p *published) close() {
	_ = p.l.Close()
	if p.end != nil {
		p.end()
	}
}

// Close ends all ports and all connections, and waits for that.
func (s *Set) Close() {
	s.mu.Lock()
	s.closed = true
	for _, p := range s.ports {
		p.close()
	}
	s.ports = nil
	s.mu.Unlock()
	s.all.Wait()
}

// Added is a list of ports with one more.
func Added(ports []api.Port, p api.Port) ([]api.Port, error) {
	p = p.WithDefaults()
	for _, q := range ports {
		if p.Clashes(q) {
			return nil, errdefs.AlreadyExists.Errorf("port %d of %s is taken: the VM publishes %s", p.HostPort, p.Address, q).
				WithRemedy("another HOST; without one any free port is taken")
		}
	}
	ports = append(slices.Clone(ports), p)
	return ports, api.ValidatePorts(ports)
}

// How long an accept that failed for want of something waits.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// accept takes the connections of one port.
func (s *Set) accept(ctx context.Context, p *published) {
	pause := firstPause
	for {
		conn, err := p.l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			if conn != nil {
				_ = conn.Close()
			}
			return
		}
		if err != nil { // descriptors are used up, or the like
			s.opts.Log.Warn("a port takes no connection", "port", p.String(), "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, lastPause)
			continue
		}
		pause = firstPause
		if !s.slot(ctx) {
			_ = conn.Close()
			return
		}
		s.all.Go(func() {
			defer s.release()
			s.one(ctx, p, conn)
		})
	}
}

// slot waits until one more connection may be open.
func (s *Set) slot(ctx context.Context) bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
	}
	s.mu.Lock()
	first := !s.crowded
	s.crowded = true
	s.mu.Unlock()
	if first {
		s.opts.Crowded(MaxConns)
	}
	select {
	case s.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// release ends a connection's slot. Only when half of them are free again, the next crowd is worth a word.
func (s *Set) release() {
	<-s.slots
	if len(s.slots) > MaxConns/2 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crowded = false
}

// one is the life of one connection.
func (s *Set) one(ctx context.Context, p *published, conn *net.TCPConn) {
	rec := api.NetRecord{Time: time.Now().UTC(), Kind: "port", Port: p.GuestPort, Proto: "tcp", Verdict: "allow"}
	if at, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		rec.Addr = at.AddrPort().Addr().Unmap().String()
	}
	s.opts.Active()
	var mu sync.Mutex
	err := s.opts.Forward(ctx, p.GuestPort, conn, func(in, out int) {
		s.opts.Active()
		mu.Lock()
		defer mu.Unlock()
		rec.BytesIn += int64(in)
		rec.BytesOut += int64(out)
	})
	_ = conn.Close()
	rec.DurationMs = time.Since(rec.Time).Milliseconds()
	if err != nil {
		rec.Reason = err.Error()
	}
	mu.Lock()
	defer mu.Unlock()
	s.opts.Record(rec)
}
