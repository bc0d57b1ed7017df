// Package piece has buffers to move bytes with: small ones while little comes, large ones to be used again while much does.
//
// Layer: network, below gateway. It imports none of ours.
package piece

import "sync"

const (
	small = 4 << 10
	// Large is the size of a large one: two of the largest segments, on each kind of wire. A little more would make a third
	// one of a few bytes each time.
	Large = 2 * 65360
)

// Buffer is large only while much comes at once: thousands of silent connections must not hold much.
type Buffer struct {
	Pool  *Pool
	b     []byte
	large *[Large]byte
}

// Pool are large ones to be used again.
type Pool struct{ pool sync.Pool }

// Get takes one.
func (p *Pool) Get() *[Large]byte {
	if l, ok := p.pool.Get().(*[Large]byte); ok {
		return l
	}
	return new([Large]byte)
}

// Put gives one back.
func (p *Pool) Put(l *[Large]byte) { p.pool.Put(l) }

// Next is where the next read goes.
func (s *Buffer) Next() []byte {
	if s.large != nil {
		return s.large[:]
	}
	if s.b == nil {
		s.b = make([]byte, small)
	}
	return s.b
}

// Used says how much the last read gave.
func (s *Buffer) Used(n int) {
	switch {
	case s.large == nil && n == small:
		s.large = s.Pool.Get()
	case s.large != nil && n < small:
		s.Release()
	}
}

// Release gives back what it holds of the pool.
func (s *Buffer) Release() {
	if s.large != nil {
		s.Pool.Put(s.large)
		s.large = nil
	}
}
