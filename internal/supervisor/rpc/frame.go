package rpc

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// Kinds of an exec's frames.
const (
	frameStarted = 's' // api.ProcessInfo
	frameStdout  = 'o'
	frameStderr  = 'e'
	frameExit    = 'x' // api.ExecResult; the last frame
	frameProblem = 'p' // errdefs.Problem; the last frame
	frameBegin   = 'b' // api.Process; the first frame of an attachment, whose last is api.AttachResult
	frameGap     = 'g' // a number: so many bytes of output are gone
)

const frameHeader = 5

// writeFrame writes one frame in one piece.
func writeFrame(w io.Writer, kind byte, payload []byte) error {
	b := make([]byte, frameHeader, frameHeader+len(payload))
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	_, err := w.Write(append(b, payload...))
	return err
}

func writeJSONFrame(w io.Writer, kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, kind, b)
}

// readFrame reads one frame into buf, which grows as needed. A clean end of the stream is io.EOF.
func readFrame(r io.Reader, buf []byte) (kind byte, payload []byte, err error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxProblem {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	if int(n) > cap(buf) {
		buf = make([]byte, n)
	}
	payload = buf[:n]
	if _, err := io.ReadFull(r, payload); err != nil {
		if err == io.EOF { //nolint:errorlint // ReadFull's own
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return head[0], payload, nil
}

// startFrame is how an exec's request begins.
func startFrame(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...), nil
}

func readStart(r io.Reader, into any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxStart {
		return fmt.Errorf("a request of %d bytes", n)
	}
	// It grows as bytes come, not as the length says.
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return err
	}
	if len(b) != int(n) {
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(b, into)
}
