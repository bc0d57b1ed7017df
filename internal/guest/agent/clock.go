package agent

import (
	"fmt"
	"net/http"
	"strconv"
)

// clock is a System whose wall clock can be set.
type clock interface{ SetClock(ns int64) error }

// putClock sets the wall clock to what the host says.
func (a *Agent) putClock(w http.ResponseWriter, r *http.Request) {
	if err := a.ready(); err != nil {
		answer(w, http.StatusConflict, problem{"wrong_state", err.Error()})
		return
	}
	ns, err := strconv.ParseInt(r.URL.Query().Get("ns"), 10, 64)
	if err != nil || ns <= 0 {
		answer(w, http.StatusBadRequest, problem{"invalid", fmt.Sprintf("ns is no time: %q", r.URL.Query().Get("ns"))})
		return
	}
	if c, ok := a.opts.System.(clock); ok {
		if err := c.SetClock(ns); err != nil {
			answer(w, http.StatusInternalServerError, problem{"internal", err.Error()})
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}
