// Package qmp speaks QEMU's machine protocol on a stream: typed, with bounds on everything that is read.
//
// Layer: engine/qemu. It imports errdefs.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/smolvm/smolvm/errdefs"
)

// maxMessage bounds one message of QEMU's, which is one line.
const maxMessage = 256 << 10

// Event is something that QEMU tells unasked.
type Event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

// Error is QEMU's answer to a command that it refuses.
type Error struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *Error) Error() string { return e.Desc }

// Version is QEMU's, from its greeting.
type Version struct {
	Major int `json:"major"`
	Minor int `json:"minor"`
	Micro int `json:"micro"`
}

// Conn is a connection whose capabilities were negotiated. It is safe for concurrent use.
type Conn struct {
	conn    net.Conn
	events  func(Event)
	done    chan struct{}
	err     error // why reading ended; readable after done
	version Version

	mu      sync.Mutex
	nextID  uint64
	pending map[uint64]chan answer
}

type answer struct {
	result json.RawMessage
	err    *Error
}

// message is any line that QEMU writes.
type message struct {
	QMP *struct {
		Version struct {
			QEMU Version `json:"qemu"`
		} `json:"version"`
	} `json:"QMP"`
	Event
	ID     *uint64         `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *Error          `json:"error"`
}

// Open takes conn over, waits for the greeting and negotiates. Each event goes to events, one after another, in the
// goroutine that reads: it must not block and must not call Execute. On error conn is closed.
func Open(ctx context.Context, conn net.Conn, events func(Event)) (*Conn, error) {
	c := &Conn{conn: conn, events: events, done: make(chan struct{}), pending: map[uint64]chan answer{}}
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 4096), maxMessage)
	if err := c.greeting(ctx, lines); err != nil {
		_ = conn.Close()
		return nil, err
	}
	go c.read(lines)
	if err := c.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) greeting(ctx context.Context, lines *bufio.Scanner) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })
	m, err := next(lines)
	if !stop() {
		return errdefs.Timeout.Errorf("qmp: no greeting: %w", ctx.Err())
	}
	if err != nil {
		return errdefs.Engine.Errorf("qmp: no greeting: %w", err)
	}
	if m.QMP == nil {
		return errdefs.Engine.Errorf("qmp: the monitor's first message is no greeting")
	}
	c.version = m.QMP.Version.QEMU
	return nil
}

func next(lines *bufio.Scanner) (message, error) {
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return message{}, fmt.Errorf("malformed message: %w", err)
		}
		return m, nil
	}
	if err := lines.Err(); err != nil {
		return message{}, err
	}
	return message{}, io.EOF
}

// read hands out what comes until the stream ends or QEMU breaks the protocol.
func (c *Conn) read(lines *bufio.Scanner) {
	var err error
	for err == nil {
		var m message
		if m, err = next(lines); err != nil {
			break
		}
		switch {
		case m.Name != "":
			if c.events != nil {
				c.events(m.Event)
			}
		case m.ID != nil:
			c.answered(*m.ID, answer{m.Return, m.Error})
		case m.Error != nil: // of what it could not even take apart, so nobody's
			err = m.Error
		}
	}
	c.err = err
	_ = c.conn.Close()
	close(c.done)
}

func (c *Conn) answered(id uint64, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch, ok := c.pending[id]; ok {
		delete(c.pending, id)
		ch <- a // has room for one
	}
}

// Version is QEMU's.
func (c *Conn) Version() Version { return c.version }

// Done is closed when the connection has ended; all events before its end were handed out then.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Execute runs a command and puts its result into result, which may be nil. A refusal wraps *Error.
func (c *Conn) Execute(ctx context.Context, command string, args, result any) error {
	id, ch := c.expect()
	defer c.forget(id)
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, args, id})
	if err != nil {
		return errdefs.Internal.Errorf("qmp %s: %w", command, err)
	}
	if err := c.write(ctx, append(line, '\n')); err != nil {
		return c.failed(command, err)
	}
	select {
	case a := <-ch:
		if a.err != nil {
			return errdefs.Engine.Errorf("qmp %s: %w", command, a.err)
		}
		if result == nil {
			return nil
		}
		if err := json.Unmarshal(a.result, result); err != nil {
			return errdefs.Engine.Errorf("qmp %s: its answer: %w", command, err)
		}
		return nil
	case <-c.done:
		return c.failed(command, c.err)
	case <-ctx.Done():
		return errdefs.Timeout.Errorf("qmp %s: no answer: %w", command, ctx.Err())
	}
}

func (c *Conn) failed(command string, err error) error {
	if errors.Is(err, io.EOF) {
		err = errors.New("the monitor is gone")
	}
	return errdefs.Engine.Errorf("qmp %s: %w", command, err)
}

func (c *Conn) expect() (uint64, chan answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID++
	ch := make(chan answer, 1)
	c.pending[c.nextID] = ch
	return c.nextID, ch
}

func (c *Conn) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

// write sends one whole line. A monitor that does not take a few bytes within seconds is broken, and half a line would
// spoil the next command: the connection is closed then.
func (c *Conn) write(ctx context.Context, line []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.conn.Write(line); err != nil {
		_ = c.conn.Close()
		return err
	}
	return nil
}
