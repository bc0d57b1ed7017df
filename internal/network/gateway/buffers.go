package gateway

import (
	"net/netip"
	"sync"
)

const (
	smallBuffer = 4 << 10
	// Two of the largest segments, on each kind of wire: a little more would make a third one of a few bytes each time.
	largeBuffer = 2 * 65360
)

// small is a buffer that is large only while much comes at once: thousands of silent connections must not hold much.
type small struct {
	pool  *buffers
	b     []byte
	large *[largeBuffer]byte
}

// buffers are large ones to be used again.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() *[largeBuffer]byte {
	if l, ok := b.pool.Get().(*[largeBuffer]byte); ok {
		return l
	}
	return new([largeBuffer]byte)
}

func (b *buffers) put(l *[largeBuffer]byte) { b.pool.Put(l) }

func (s *small) next() []byte {
	if s.large != nil {
		return s.large[:]
	}
	if s.b == nil {
		s.b = make([]byte, smallBuffer)
	}
	return s.b
}

// used says how much the last read gave.
func (s *small) used(n int) {
	switch {
	case s.large == nil && n == smallBuffer:
		s.large = s.pool.get()
	case s.large != nil && n < smallBuffer:
		s.release()
	}
}

func (s *small) release() {
	if s.large != nil {
		s.pool.put(s.large)
		s.large = nil
	}
}

// seen remembers under which names the guest learned addresses, for the audit only.
type seen struct {
	mu    sync.Mutex
	names map[netip.Addr]string
	order [maxSeen]netip.Addr
	next  int
}

const maxSeen = 2048

func newSeen() *seen { return &seen{names: map[netip.Addr]string{}} }

func (s *seen) add(a netip.Addr, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.names[a]; !ok {
		delete(s.names, s.order[s.next])
		s.order[s.next] = a
		s.next = (s.next + 1) % maxSeen
	}
	s.names[a] = name
}

func (s *seen) name(a netip.Addr) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names[a]
}
