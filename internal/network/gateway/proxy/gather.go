package proxy

import (
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// gather is a connection on which a server writes HTTP/2 in clear. The standard library lets go of a response's head before it takes
// its body, though a small one is whole by then: to the guest these are two packets, and twice the work. Here the head of a whole
// response waits for its body.
type gather struct {
	net.Conn
	limit time.Duration // how long a head waits at most: the guest may not take the body yet

	mu    sync.Mutex
	whole int             // responses of which all will be written at once, and nothing was yet
	frame [frameHead]byte // the beginning of a frame
	have  int             // bytes of it
	rest  int             // bytes of its content to come
	head  bool            // what was written last is the head of a response that has a body
	held  []byte
	timer *time.Timer
	err   error
}

// Of HTTP/2's frames: RFC 9113, section 4.1.
const (
	frameHead  = 9
	frameType  = 3 // where it is
	frameFlags = 4

	typeHeaders   = 1
	flagEndStream = 1
	flagEndHeads  = 4
)

const (
	// wholeBelow is up to which size of its body the server writes a response when its handler is done.
	wholeBelow = 4 << 10
	maxHeld    = 4 << 10
	gatherFor  = time.Millisecond
)

// expect says that one more response is written at once.
func (g *gather) expect() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.whole++
}

// Write implements net.Conn.
func (g *gather) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return 0, g.err
	}
	g.follow(b)
	if g.head && g.whole > 0 && len(g.held)+len(b) <= maxHeld {
		g.whole--
		g.held = append(g.held, b...)
		if g.timer == nil {
			g.timer = time.AfterFunc(g.limit, g.late)
		} else {
			g.timer.Reset(g.limit)
		}
		return len(b), nil
	}
	if len(g.held) == 0 {
		return g.Conn.Write(b)
	}
	g.timer.Stop()
	g.held = append(g.held, b...)
	if g.flush(); g.err != nil {
		return 0, g.err
	}
	return len(b), nil
}

// follow looks at what frames b has.
func (g *gather) follow(b []byte) {
	for len(b) > 0 {
		if g.rest > 0 {
			n := min(g.rest, len(b))
			b, g.rest = b[n:], g.rest-n
			continue
		}
		n := copy(g.frame[g.have:], b)
		b = b[n:]
		if g.have += n; g.have < frameHead {
			break
		}
		g.have = 0
		g.rest = int(binary.BigEndian.Uint32(g.frame[:]) >> 8)
		g.head = g.frame[frameType] == typeHeaders && g.frame[frameFlags]&(flagEndStream|flagEndHeads) == flagEndHeads
	}
	g.head = g.head && g.have == 0 && g.rest == 0
}

func (g *gather) flush() {
	_, g.err = g.Conn.Write(g.held)
	g.held = g.held[:0]
}

// late lets go of a head whose body does not come.
func (g *gather) late() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.held) > 0 && g.err == nil {
		g.flush()
	}
}

// CloseWrite tells the guest that no more will come.
func (g *gather) CloseWrite() error {
	if w, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
