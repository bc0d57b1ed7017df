// Package capfile keeps what somebody prints in a file that does not grow beyond a limit: its beginning and its end, with
// a line between them that tells how much was cut.
//
// Layer: leaf. It imports none of ours.
package capfile

import (
	"fmt"
	"io"
	"os"
	"sync"
)

// Writer writes such a file. It is safe for concurrent use. It never fails: what cannot be kept (a full disk) is lost, and
// counted.
type Writer struct {
	mu    sync.Mutex
	f     *os.File
	limit int64
	size  int64
	cut   int64 // bytes that were dropped
	head  int64 // bytes at the beginning that stay
	lost  int64
}

// Create makes the file at path empty. limit is at least 4 KiB.
func Create(path string, limit int64) (*Writer, error) {
	// In place: who follows the former content sees the file shrink.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // the caller's own path
	if err != nil {
		return nil, err
	}
	limit = max(limit, 4096)
	return &Writer{f: f, limit: limit, head: limit / 4}, nil
}

// Write implements io.Writer. It always takes everything.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		part := p[:min(int64(len(p)), w.limit/4)]
		p = p[len(part):]
		if w.size+int64(len(part)) > w.limit {
			w.compact()
		}
		m, err := w.f.WriteAt(part, w.size)
		w.size += int64(m)
		if err != nil {
			w.lost += int64(len(part) - m)
		}
	}
	return n, nil
}

// compact drops the middle: the head stays, and the last quarter moves up behind the line that tells of the cut.
func (w *Writer) compact() {
	end := w.size
	from := end - min(w.limit/4, end-w.head)
	w.cut += from - w.head
	mark := fmt.Sprintf("\n[… %d bytes were cut here …]\n", w.cut)
	m, _ := w.f.WriteAt([]byte(mark), w.head)
	w.size = w.head + int64(m)
	piece := make([]byte, min(w.limit/4, 1<<20)) // what is moved lies behind where it goes
	for from < end {
		n, err := w.f.ReadAt(piece[:min(int64(len(piece)), end-from)], from)
		if n == 0 || err != nil && err != io.EOF { //nolint:errorlint // ReadAt's own
			break
		}
		m, _ := w.f.WriteAt(piece[:n], w.size)
		w.size, from = w.size+int64(m), from+int64(n)
	}
	_ = w.f.Truncate(w.size)
}

// Tail returns up to n bytes of the end.
func (w *Writer) Tail(n int64) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := make([]byte, min(n, w.size))
	m, _ := w.f.ReadAt(b, w.size-int64(len(b)))
	return b[:m]
}

// Lost is how many bytes could not be written.
func (w *Writer) Lost() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// Close closes the file. Writes after it are lost.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.f.Close()
}
