package rpc

import (
	"io"
	"sync/atomic"
)

// source is a request's body that comes from a caller's reader. The transport waits for a Read of its body, and a reader such
// as a terminal may not return for hours: so another goroutine reads, and is left behind when the answer is there.
type source struct {
	*io.PipeReader
	err atomic.Pointer[error]
}

func newSource(r io.Reader) *source {
	pr, pw := io.Pipe()
	s := &source{PipeReader: pr}
	go func() {
		buf := make([]byte, chunkSize)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				if _, werr := pw.Write(buf[:n]); werr != nil {
					return // nobody wants it any more
				}
			}
			if err == io.EOF { //nolint:errorlint // readers end with exactly that
				_ = pw.Close()
				return
			}
			if err != nil {
				s.err.Store(&err)
				_ = pw.CloseWithError(err)
				return
			}
		}
	}()
	return s
}

// failure is what the caller's reader said instead of its end.
func (s *source) failure() error {
	if err := s.err.Load(); err != nil {
		return *err
	}
	return nil
}
