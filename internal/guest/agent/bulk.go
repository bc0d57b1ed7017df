package agent

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/smolvm/smolvm/internal/guest/agent/files"
)

// problem is an error as errdefs has it: code, message.
type problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// body tells whether an answer's body began: then a failure can only break the stream.
type body struct {
	http.ResponseWriter
	begun bool
}

func (b *body) Write(p []byte) (int, error) {
	b.begun = true
	return b.ResponseWriter.Write(p)
}

// bulk makes a handler of h.
func (a *Agent) bulk(h func(w http.ResponseWriter, r *http.Request, path string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := a.ready(); err != nil {
			answer(w, http.StatusConflict, problem{"wrong_state", err.Error()})
			return
		}
		out := &body{ResponseWriter: w}
		path, err := files.Clean(r.URL.Query().Get("path"))
		if err == nil {
			err = h(out, r, path)
		}
		if err == nil {
			return
		}
		if out.begun {
			panic(http.ErrAbortHandler) // resets the stream
		}
		_, class, status := codeOf(err)
		answer(w, status, problem{class, err.Error()})
	}
}

func answer(w http.ResponseWriter, status int, p problem) {
	const most = 4 << 10
	if len(p.Message) > most {
		p.Message = p.Message[:most]
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(p)
}

// number reads a query parameter; absent is def.
func number(r *http.Request, name string, base int, def int64) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(s, base, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: %s=%q", files.ErrPath, name, s)
	}
	return n, nil
}

func (a *Agent) getFile(w http.ResponseWriter, r *http.Request, path string) error {
	offset, err := number(r, "offset", 10, 0)
	if err != nil {
		return err
	}
	length, err := number(r, "length", 10, -1)
	if err != nil {
		return err
	}
	f, err := files.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	w.Header().Set("Content-Type", "application/octet-stream")
	return a.bufs.Read(w, f, offset, length)
}

func (a *Agent) putFile(w http.ResponseWriter, r *http.Request, path string) error {
	var attr files.Attr
	for _, p := range []struct {
		name string
		base int
		max  int64
		set  func(n int64)
	}{
		{"mode", 8, 0o7777, func(n int64) { m := uint32(n); attr.Mode = &m }}, //nolint:gosec // bounded by max
		{"uid", 10, 1<<32 - 2, func(n int64) { id := int(n); attr.UID = &id }},
		{"gid", 10, 1<<32 - 2, func(n int64) { id := int(n); attr.GID = &id }},
	} {
		n, err := number(r, p.name, p.base, -1)
		if err != nil || n > p.max {
			return fmt.Errorf("%w: %s", files.ErrPath, p.name)
		}
		if n >= 0 {
			p.set(n)
		}
	}
	if err := a.bufs.Write(path, attr, r.Body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *Agent) getTar(w http.ResponseWriter, _ *http.Request, path string) error {
	w.Header().Set("Content-Type", "application/x-tar")
	return a.bufs.TarOut(w, path)
}

func (a *Agent) putTar(w http.ResponseWriter, r *http.Request, path string) error {
	if err := a.bufs.TarIn(path, r.Body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
