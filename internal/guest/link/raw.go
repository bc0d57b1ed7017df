package link

import (
	"encoding/binary"
	"fmt"
	"io"
)

// RawParam on the guest kernel's command line makes the agent answer on the bare port, without frames: what the
// benchmarks hold the link against. A machine started so runs nothing else.
const RawParam = "smolvm.raw"

// The requests of the bare port: a letter and a big-endian length.
const (
	rawEcho   = 'e' // send the next n bytes back as they come
	rawSink   = 'i' // read n bytes, then answer one
	rawSource = 'o' // write n bytes
)

const rawChunk = 64 << 10

// ServeRaw answers requests on the bare port until reading fails.
func ServeRaw(port io.ReadWriter) error {
	buf := make([]byte, rawChunk)
	for {
		var head [9]byte
		if _, err := io.ReadFull(port, head[:]); err != nil {
			return fmt.Errorf("raw port: %w", err)
		}
		n := int64(binary.BigEndian.Uint64(head[1:])) //nolint:gosec // a benchmark's own length
		var err error
		switch head[0] {
		case rawEcho:
			_, err = io.CopyBuffer(struct{ io.Writer }{port}, io.LimitReader(port, n), buf)
		case rawSink:
			if _, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(port, n), buf); err == nil {
				_, err = port.Write(head[:1])
			}
		case rawSource:
			for left := n; left > 0 && err == nil; left -= min(left, rawChunk) {
				_, err = port.Write(buf[:min(left, rawChunk)])
			}
		default:
			err = fmt.Errorf("unknown request %q", head[0])
		}
		if err != nil {
			return fmt.Errorf("raw port: %w", err)
		}
	}
}

// Raw is the host's end of a bare port.
type Raw struct{ conn io.ReadWriter }

// NewRaw returns the host's end on conn, which nothing else may use.
func NewRaw(conn io.ReadWriter) *Raw { return &Raw{conn: conn} }

func (r *Raw) request(kind byte, n int64, body []byte) error {
	msg := binary.BigEndian.AppendUint64([]byte{kind}, uint64(n)) //nolint:gosec // lengths are positive
	_, err := r.conn.Write(append(msg, body...))
	return err
}

// Echo sends p and reads it back.
func (r *Raw) Echo(p []byte) error {
	if err := r.request(rawEcho, int64(len(p)), p); err != nil {
		return err
	}
	_, err := io.ReadFull(r.conn, p)
	return err
}

// Send writes n bytes and waits until the guest has them all.
func (r *Raw) Send(n int64) error {
	if err := r.request(rawSink, n, nil); err != nil {
		return err
	}
	buf := make([]byte, rawChunk)
	for left := n; left > 0; left -= min(left, rawChunk) {
		if _, err := r.conn.Write(buf[:min(left, rawChunk)]); err != nil {
			return err
		}
	}
	_, err := io.ReadFull(r.conn, buf[:1])
	return err
}

// Receive reads n bytes from the guest.
func (r *Raw) Receive(n int64) error {
	if err := r.request(rawSource, n, nil); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, r.conn, n)
	return err
}
