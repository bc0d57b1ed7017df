package tunnel

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The kinds of frames.
const (
	kindData = 'd' // so many bytes follow
	kindAck  = 'a' // so many bytes were taken off our hands
	kindEnd  = 'e' // no more bytes will come
)

const (
	header = 4        // a byte for the kind, three for the number
	chunk  = 32 << 10 // the most bytes in one frame
	// Window is how many bytes may be under way in one direction: what an end keeps of what its connection does not take yet.
	Window = 128 << 10
)

// put writes a frame's header.
func put(b []byte, kind byte, n int) {
	binary.BigEndian.PutUint32(b, uint32(n)) //nolint:gosec // no more than the window
	b[0] = kind
}

// next reads a frame's header. What comes from the other end is not trusted.
func next(r io.Reader) (kind byte, n int, err error) {
	var h [header]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, 0, err
	}
	kind, h[0] = h[0], 0
	n = int(binary.BigEndian.Uint32(h[:]))
	switch {
	case kind == kindData && n > 0 && n <= chunk, kind == kindAck && n > 0 && n <= Window, kind == kindEnd && n == 0:
		return kind, n, nil
	}
	return 0, 0, fmt.Errorf("a frame %q of %d", kind, n)
}
