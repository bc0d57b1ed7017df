package firecracker

import (
	"bytes"
	"io"
	"regexp"
	"sync"
)

// order is what the guest's kernel said, last, of its own end. Firecracker has no switch that a guest could turn itself off
// with, and tells none of its reasons to end: it exits with 0 after a reboot as after a triple fault. The kernel prints
// these lines at its highest level whatever the console's is. They are the guest's word, as a power switch would be.
type order int

const (
	orderNone order = iota
	orderHalt
	orderReboot
	orderPanic
)

// A kernel's line has its time. Who may write it to the console is root in the guest, and could end the guest anyway.
var orderLine = regexp.MustCompile(`\[ *\d+\.\d{6}\](?:\[[ TC]*\d+\])? (?:reboot: (?:(System halted|Power down|Power off not available)|(Restarting system))|(Kernel panic - not syncing))`)

const (
	// consoleBuffer is how much of the console is held; the writer decides what is kept.
	consoleBuffer = 64 << 10
	// maxOrder is how much of a line is looked at.
	maxOrder = 512
)

// console reads what the guest prints, hands it on, and looks for what it says of its end.
type console struct {
	to     io.Writer
	halted func() // called at each orderHalt; must not block

	line []byte

	mu   sync.Mutex
	last order
}

// read reads until r ends. A writer that fails must not stop the guest, which waits for its console.
func (c *console) read(r io.Reader) {
	buf := make([]byte, consoleBuffer)
	for n, err := 0, error(nil); err == nil; {
		n, err = r.Read(buf)
		_, _ = c.to.Write(buf[:n])
		c.scan(buf[:n])
	}
}

// scan looks at the lines in p, of which the last may go on with the next p.
func (c *console) scan(p []byte) {
	for len(p) > 0 {
		part, rest, ended := bytes.Cut(p, []byte("\n"))
		if room := maxOrder - len(c.line); room > 0 {
			c.line = append(c.line, part[:min(room, len(part))]...)
		}
		if p = rest; !ended {
			return
		}
		c.take(c.line)
		c.line = c.line[:0]
	}
}

func (c *console) take(line []byte) {
	m := orderLine.FindSubmatch(line)
	if m == nil {
		return
	}
	o := orderPanic
	switch {
	case m[1] != nil:
		o = orderHalt
	case m[2] != nil:
		o = orderReboot
	}
	c.mu.Lock()
	if c.last != orderPanic { // what comes after a panic is its consequence
		c.last = o
	}
	c.mu.Unlock()
	if o == orderHalt {
		c.halted()
	}
}

func (c *console) order() order {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}
