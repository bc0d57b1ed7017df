// Package tunnel carries one TCP connection over a stream of the agent's link, with all that belongs to it: both ends of the
// data, each direction's own end, and a break as a break. Both sides run the same code.
//
// Streams of the link share its flow control, so that bytes which one connection does not take could hold up all others and
// every command. Therefore an end sends only so much as the other one has said that it has room for, and each end reads its
// stream at once, always: what is under way is bounded by Window in each direction.
//
// The stream consists of frames, a byte for the kind and three for a number, big-endian: data (the number of bytes that
// follow), ack (so many bytes were passed on), end (no more data comes).
//
// Layer: guest, shared by both ends. It imports none of ours.
package tunnel

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Conn is a connection whose directions end apart.
type Conn interface {
	io.ReadWriter
	// CloseWrite tells the peer that no more comes.
	CloseWrite() error
}

// Seen is told of bytes when they are passed on: received is from the stream to the connection.
type Seen func(received, sent int)

// Join passes bytes between a connection and the frames of a stream until both directions have ended, which is nil, or
// something failed. Then it calls abort once, which must end all calls on conn, r and w, and returns what failed. It closes
// nothing itself: after nil, the caller closes w, and then what is behind r.
func Join(conn Conn, r io.Reader, w io.Writer, abort func(), seen Seen) error {
	read, err := run(conn, r, w, abort, seen)
	if err != nil {
		<-read
	}
	return err
}

// Answer is Join for the end that the other one has called. It returns when that one has closed its stream too: by then it
// needs ours no more.
func Answer(conn Conn, r io.Reader, w io.Writer, abort func()) error {
	read, err := run(conn, r, w, abort, func(int, int) {})
	<-read
	return err
}

// run does it; read is closed when r has ended.
func run(conn Conn, r io.Reader, w io.Writer, abort func(), seen Seen) (read <-chan struct{}, _ error) {
	j := &join{conn: conn, w: w, abort: abort, seen: seen, credit: Window, passing: true}
	j.changed = sync.NewCond(&j.mu)
	var all sync.WaitGroup
	all.Go(func() {
		defer j.quiet()
		j.part(j.send())
	})
	all.Go(func() { j.part(j.finish(j.deliver())) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := j.receive(r); err != nil {
			j.breakOff(err)
		}
	}()
	all.Wait()
	j.mu.Lock()
	stop, whole := j.rest, j.parts == 2
	j.mu.Unlock()
	if stop != nil {
		stop()
	}
	if !whole { // a stream that takes no more brings no more either
		<-done
		j.fail(errUnfinished)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return done, j.err
}

// join is one connection at work.
type join struct {
	conn  Conn
	abort func()
	seen  Seen

	wmu sync.Mutex // of the stream
	w   io.Writer

	mu      sync.Mutex
	changed *sync.Cond
	credit  int    // bytes that we may send
	queue   []byte // what is to be passed on
	queued  int    // bytes in the queue, and those being passed on
	ended   bool   // the other end sends no more
	sentEnd bool   // we have told, or are just telling, that we send no more
	silent  bool   // we send no more, whatever the reason
	cut     error  // why the stream brings no more, although it should
	passing bool   // what it has brought is still passed on
	parts   int    // of the two directions, those that have ended
	rest    func() // ends the watch after our last byte; nil before
	err     error
}

// errUnfinished is a stream that ends in the middle.
var errUnfinished = errors.New("the stream ended before the connection did")

// errStream is the stream's failure where we write. What reads it says why, and decides.
var errStream = errors.New("the stream takes no more")

// part notes the end of a direction.
func (j *join) part(err error) {
	switch {
	case err == nil:
		j.mu.Lock()
		defer j.mu.Unlock()
		j.parts++
	case !errors.Is(err, errStream):
		j.fail(err)
	}
}

// linger bounds what a connection may still take after its stream broke.
const linger = 2 * time.Second

// breakOff notes that the stream brings no more. What it has brought still goes to the connection: a server may refuse in the
// middle of a request, and say why.
func (j *join) breakOff(err error) {
	j.mu.Lock()
	j.cut = err
	passing := j.passing
	j.changed.Broadcast()
	j.mu.Unlock()
	if !passing {
		j.fail(err)
	} else if c, ok := j.conn.(interface{ SetWriteDeadline(at time.Time) error }); ok {
		_ = c.SetWriteDeadline(time.Now().Add(linger))
	}
}

// finish notes that everything that came was passed on, or cannot be.
func (j *join) finish(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.passing = false
	if err == nil {
		err = j.cut
	}
	return err
}

// quiet notes that we send no more.
func (j *join) quiet() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.silent = true
	j.changed.Broadcast()
}

// fail breaks everything off. Only the first reason counts, and none after both directions have ended.
func (j *join) fail(err error) {
	j.mu.Lock()
	first := j.err == nil && j.parts < 2
	if first {
		j.err = err
		j.changed.Broadcast()
	}
	j.mu.Unlock()
	if first {
		j.abort()
	}
}

// write sends a frame, which has its header's room in front.
func (j *join) write(frame []byte, kind byte, n int) error {
	put(frame, kind, n)
	j.wmu.Lock()
	defer j.wmu.Unlock()
	if _, err := j.w.Write(frame); err != nil {
		return errStream
	}
	return nil
}

// room waits until something may be sent, and returns how much.
func (j *join) room() (int, error) {
	if n, err := j.roomNow(); n > 0 || err != nil {
		return n, err
	}
	defer j.watch()()
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.credit == 0 && j.err == nil && j.cut == nil {
		j.changed.Wait()
	}
	if j.cut != nil {
		return 0, errStream
	}
	return min(j.credit, chunk), j.err
}

func (j *join) roomNow() (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return min(j.credit, chunk), j.err
}

// send passes on what the connection brings.
func (j *join) send() error {
	buf := make([]byte, header+chunk)
	for {
		room, err := j.room()
		if err != nil {
			return err
		}
		n, err := j.conn.Read(buf[header : header+room])
		if n > 0 {
			j.mu.Lock()
			j.credit -= n
			j.mu.Unlock()
			if err := j.write(buf[:header+n], kindData, n); err != nil {
				return err
			}
			j.seen(0, n)
		}
		if err == io.EOF { //nolint:errorlint // a connection's own
			stop := j.watch()
			j.mu.Lock()
			j.sentEnd, j.rest = true, stop
			j.mu.Unlock()
			return j.write(make([]byte, header), kindEnd, 0)
		}
		if err != nil {
			return err
		}
	}
}

// receive reads frames until the stream ends.
func (j *join) receive(r io.Reader) error {
	for {
		kind, n, err := next(r)
		if err == io.EOF { //nolint:errorlint // ReadFull's own
			return j.over()
		}
		if err != nil {
			return err
		}
		switch kind {
		case kindData:
			b := make([]byte, n)
			if _, err := io.ReadFull(r, b); err != nil {
				return errUnfinished
			}
			err = j.take(b)
		case kindAck:
			err = j.acked(n)
		case kindEnd:
			err = j.take(nil)
		}
		if err != nil {
			return err
		}
	}
}

// over is the stream's end: all must have come, and all must have gone, because nobody reads it any more.
func (j *join) over() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.ended || !j.sentEnd {
		return errUnfinished
	}
	return nil
}

// take queues what came; nil is the end.
func (j *join) take(b []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended {
		return errors.New("data after the end")
	}
	if j.queued += len(b); j.queued > Window {
		return fmt.Errorf("%d bytes are under way, more than %d", j.queued, Window)
	}
	switch {
	case b == nil:
		j.ended = true
	case len(j.queue) == 0:
		j.queue = b
	default:
		j.queue = append(j.queue, b...)
	}
	j.changed.Broadcast()
	return nil
}

func (j *join) acked(n int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.credit += n; j.credit > Window {
		return errors.New("more was acknowledged than sent")
	}
	j.changed.Broadcast()
	return nil
}

// queuedBytes waits for what is to be passed on; nil is the end.
func (j *join) queuedBytes() ([]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.queue) == 0 && !j.ended && j.err == nil && j.cut == nil {
		j.changed.Wait()
	}
	b := j.queue
	j.queue = nil
	if len(b) == 0 && !j.ended && j.err == nil {
		return nil, j.cut
	}
	return b, j.err
}

// passed notes that bytes were passed on, and reports whether the other end may wait to hear of it.
func (j *join) passed(n int) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queued -= n
	return !j.ended
}

// deliver passes on what the stream brought, and says so from time to time.
func (j *join) deliver() error {
	ack := make([]byte, header)
	for unsaid := 0; ; {
		b, err := j.queuedBytes()
		if err != nil {
			return err
		}
		if b == nil {
			return j.conn.CloseWrite()
		}
		for len(b) > 0 {
			n := min(len(b), chunk)
			if _, err := j.conn.Write(b[:n]); err != nil {
				return j.takesNoMore(err)
			}
			b = b[n:]
			j.seen(n, 0)
			unsaid += n
			if j.passed(n) && unsaid >= Window/4 {
				_ = j.write(ack, kindAck, unsaid) // without a stream, what is here is passed on all the same
				unsaid = 0
			}
		}
	}
}

// takesNoMore is a connection that does not let us write. What it has said before is still passed on.
func (j *join) takesNoMore(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for !j.silent && j.err == nil && j.cut == nil {
		j.changed.Wait()
	}
	return err
}
