package gateway

import "sync"

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
