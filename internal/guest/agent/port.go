package agent

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/smolvm/smolvm/internal/guest/agent/ports"
	"github.com/smolvm/smolvm/internal/guest/tunnel"
)

// onPort makes a handler of h, which is about a TCP port of the guest.
func (a *Agent) onPort(h func(w http.ResponseWriter, r *http.Request, port int) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := a.ready(); err != nil {
			answer(w, http.StatusConflict, problem{"wrong_state", err.Error()})
			return
		}
		port, err := number(r, "port", 10, 0)
		if err != nil || port < 1 || port > 65535 {
			answer(w, http.StatusBadRequest, problem{"invalid", fmt.Sprintf("there is no port %q", r.URL.Query().Get("port"))})
			return
		}
		if err := h(w, r, int(port)); err != nil {
			code := "network"
			if errors.Is(err, ports.ErrRefused) {
				code = "not_found"
			}
			answer(w, http.StatusServiceUnavailable, problem{code, err.Error()})
		}
	}
}

// openPort joins the stream with a port.
func (a *Agent) openPort(w http.ResponseWriter, r *http.Request, port int) error {
	conn, err := ports.Dial(r.Context(), port)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	w.WriteHeader(http.StatusOK)
	out := flushing{w, http.NewResponseController(w), a.gate}
	abort := func() {
		_ = conn.SetLinger(0)
		_ = conn.Close()
		_ = r.Body.Close()
	}
	if err := out.rc.Flush(); err != nil {
		abort()
		panic(http.ErrAbortHandler)
	}
	if err := tunnel.Answer(conn, r.Body, out, abort); err != nil {
		panic(http.ErrAbortHandler) // resets the stream
	}
	return nil
}

// portWriters is how many connections to ports may have bytes in the link's hands at once. Commands share the link, and
// would else wait behind a piece of each connection.
const portWriters = 4

// flushing sends what is written to it, when it is its turn, and returns when that is done.
type flushing struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	gate chan struct{}
}

// Write implements io.Writer.
func (f flushing) Write(p []byte) (int, error) {
	f.gate <- struct{}{}
	defer func() { <-f.gate }()
	n, err := f.w.Write(p)
	if err == nil {
		err = f.rc.Flush()
	}
	return n, err
}

// waitPort answers when something listens on a port.
func (a *Agent) waitPort(w http.ResponseWriter, r *http.Request, port int) error {
	if err := ports.Wait(r.Context(), port); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
