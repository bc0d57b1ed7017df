// Package output keeps the last output of commands: each in a ring, all of them together below one limit, for any number
// of readers. Who reads too late is told how much is gone; nobody ever waits for a reader.
//
// Layer: guest agent. It imports none of ours.
package output

import (
	"sort"
	"sync"
)

// Stream is where a command printed something.
type Stream byte

// The streams.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

const (
	smallest    = 4 << 10 // of a ring that is not empty
	maxSegments = 4096
)

// Keeper holds the rings of all commands.
type Keeper struct {
	each, all int

	mu   sync.Mutex // guards all rings too
	used int
	logs map[*Log]struct{}
}

// NewKeeper returns a keeper that keeps up to each bytes of one command and all bytes of all.
func NewKeeper(each, all int) *Keeper {
	return &Keeper{each: each, all: all, logs: map[*Log]struct{}{}}
}

// segment is a part of the output that came from one stream. It begins where the one before it ends.
type segment struct {
	end    uint64
	stream Stream
}

// Log is what one command printed. An offset counts the bytes of both streams in the order in which they came.
type Log struct {
	k        *Keeper
	buf      []byte // the byte at offset o lies at o modulo its length
	from, to uint64 // what is kept
	segments []segment
	ended    bool
	more     chan struct{} // closed when there is more, or the end; nil unless somebody waits
}

// Open begins the output of a command.
func (k *Keeper) Open() *Log {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := &Log{k: k}
	k.logs[l] = struct{}{}
	return l
}

// Write adds what the command printed.
func (l *Log) Write(s Stream, p []byte) {
	if len(p) == 0 {
		return
	}
	l.k.mu.Lock()
	defer l.k.mu.Unlock()
	if _, there := l.k.logs[l]; there {
		l.grow(int(min(uint64(l.k.each), l.to-l.from+uint64(len(p)))))
	}
	at := l.to
	l.to += uint64(len(p))
	if last := len(l.segments) - 1; last >= 0 && l.segments[last].stream == s {
		l.segments[last].end = l.to
	} else {
		l.segments = append(l.segments, segment{l.to, s})
	}
	if over := len(p) - len(l.buf); over > 0 {
		p, at = p[over:], at+uint64(over)
	}
	l.put(at, p)
	if l.to-l.from > uint64(len(l.buf)) {
		l.from = l.to - uint64(len(l.buf))
	}
	if len(l.segments) > maxSegments { // a quarter at once, so that it does not happen with every write
		l.from = max(l.from, l.segments[maxSegments/4].end)
	}
	l.trim()
	l.wake()
}

// put copies p into the ring, which has room for it.
func (l *Log) put(at uint64, p []byte) {
	for len(p) > 0 {
		n := copy(l.buf[at%uint64(len(l.buf)):], p)
		p, at = p[n:], at+uint64(n)
	}
}

// trim forgets segments before from.
func (l *Log) trim() {
	n := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].end > l.from })
	if n > 0 {
		l.segments = append(l.segments[:0], l.segments[n:]...)
	}
}

func (l *Log) wake() {
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

// grow makes room for size bytes, as far as the limit on all allows.
func (l *Log) grow(size int) {
	next := max(len(l.buf), smallest)
	for next < size {
		next *= 2
	}
	if next = min(next, l.k.each); next > len(l.buf) && l.k.room(l, next-len(l.buf)) {
		l.resize(next)
	}
}

// room takes from the largest rings until there are n bytes for l. Those that are no larger than l keep what they have.
func (k *Keeper) room(l *Log, n int) bool {
	for k.used+n > k.all {
		var most *Log
		for c := range k.logs {
			if c != l && len(c.buf) > len(l.buf) && (most == nil || len(c.buf) > len(most.buf) || len(c.buf) == len(most.buf) && c.ended && !most.ended) {
				most = c
			}
		}
		if most == nil {
			return false
		}
		half := len(most.buf) / 2
		if half < smallest {
			half = 0
		}
		most.resize(half)
	}
	return true
}

// resize gives the ring another length and keeps the end of what is in it.
func (l *Log) resize(size int) {
	old := *l
	l.k.used += size - len(l.buf)
	l.buf = nil
	if size > 0 {
		l.buf = make([]byte, size)
	}
	l.from = max(old.from, old.to-min(old.to, uint64(size)))
	for at := l.from; at < l.to; {
		part := old.buf[at%uint64(len(old.buf)):]
		part = part[:min(uint64(len(part)), l.to-at)]
		l.put(at, part)
		at += uint64(len(part))
	}
	l.trim()
}

// End says that no more comes.
func (l *Log) End() {
	l.k.mu.Lock()
	defer l.k.mu.Unlock()
	l.ended = true
	l.wake()
}

// Drop forgets everything. What is written later is not kept.
func (l *Log) Drop() {
	l.k.mu.Lock()
	defer l.k.mu.Unlock()
	if _, there := l.k.logs[l]; there {
		l.resize(0)
		delete(l.k.logs, l)
	}
	l.ended = true
	l.wake()
}

// Bounds returns the offset of the first byte that is kept, and how many were printed in all.
func (l *Log) Bounds() (from, to uint64) {
	l.k.mu.Lock()
	defer l.k.mu.Unlock()
	return l.from, l.to
}

// Piece is what a reader finds at its offset: bytes of one stream, or how many are gone, or nothing.
type Piece struct {
	Stream Stream
	N      int    // bytes that were copied
	Gap    uint64 // bytes that are gone
	// Ended tells that this was all. Else More is closed when there is more.
	Ended bool
	More  <-chan struct{}
}

// Read copies what is at the offset into p.
func (l *Log) Read(at uint64, p []byte) Piece {
	l.k.mu.Lock()
	defer l.k.mu.Unlock()
	switch {
	case at < l.from:
		return Piece{Gap: l.from - at}
	case at < l.to:
		s := l.segments[sort.Search(len(l.segments), func(i int) bool { return l.segments[i].end > at })]
		p = p[:min(uint64(len(p)), s.end-at)]
		n := copy(p, l.buf[at%uint64(len(l.buf)):])
		n += copy(p[n:], l.buf)
		return Piece{Stream: s.stream, N: n}
	case l.ended:
		return Piece{Ended: true}
	}
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return Piece{More: l.more}
}
