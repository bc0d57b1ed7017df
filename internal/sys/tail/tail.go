// Package tail keeps the end of what a process says, bounded.
//
// Layer: leaf. It imports none of ours.
package tail

import (
	"strings"
	"sync"
)

// Max is how many bytes are kept.
const Max = 8 << 10

// Buffer is an io.Writer that never fails and keeps the last Max bytes. The zero value is ready. It is safe for
// concurrent use.
type Buffer struct {
	mu  sync.Mutex
	buf []byte
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(p)
	if len(p) > Max {
		p = p[len(p)-Max:]
	}
	if over := len(b.buf) + len(p) - Max; over > 0 {
		b.buf = append(b.buf[:0], b.buf[over:]...)
	}
	b.buf = append(b.buf, p...)
	return n, nil
}

// Bytes returns a copy of what is kept.
func (b *Buffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]byte(nil), b.buf...)
}

// Lines returns the last n lines that are not blank, without control characters.
func (b *Buffer) Lines(n int) string {
	var lines []string
	for l := range strings.SplitSeq(string(b.Bytes()), "\n") {
		if l = strings.TrimSpace(clean(l)); l != "" {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r < ' ' || r == 0x7f || r == '\uFFFD' || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}
