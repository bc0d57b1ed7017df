package gate

import (
	"io"
	"net/http"
	"time"
)

// writer notes what was answered, and gives a client that reads nothing up.
type writer struct {
	http.ResponseWriter
	rc     *http.ResponseController
	stall  time.Duration
	status int
	bytes  int64
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *writer) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.stall))
	n, err := w.ResponseWriter.Write(b)
	_ = w.rc.SetWriteDeadline(time.Time{})
	w.bytes += int64(n)
	return n, err
}

// FlushError is for http.ResponseController.
func (w *writer) FlushError() error {
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.stall))
	err := w.rc.Flush()
	_ = w.rc.SetWriteDeadline(time.Time{})
	return err
}

// body gives a client that sends nothing up.
type body struct {
	io.ReadCloser
	stall time.Duration
	rc    *http.ResponseController
}

// Read implements io.Reader. The deadline goes when the piece is there: it would end the request, not only the next Read.
func (b *body) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(b.stall))
	n, err := b.ReadCloser.Read(p)
	_ = b.rc.SetReadDeadline(time.Time{})
	return n, err
}
