package server

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// TestProblems: what is wrong with a request is told as a problem with its class and its field, and nothing is asked of a VM.
func TestProblems(t *testing.T) {
	s := New(t.Context(), Options{VMs: new(lifecycle.Manager), Version: api.Version{Version: "v1"}, Log: slog.New(slog.DiscardHandler)})
	for _, tt := range []struct{ method, path, body, field, detail string }{
		{"POST", "/v1/sandboxes/web/exec", `{"argv":3}`, "body.argv", "expected array"},
		{"POST", "/v1/sandboxes/web/exec", `{"foo":3}`, "body.foo", "unexpected property"},
		{"POST", "/v1/sandboxes/-/exec", `{"argv":["true"]}`, "", `id: "-" is not 1 to 63 characters`},
		{"GET", "/v1/sandboxes?frob=1", ``, "query.frob", "unknown query parameter"},
		{"POST", "/v1/sandboxes", `{"owner":"nobody"}`, "", "neither keep nor client"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, strings.NewReader(tt.body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, r)
		b, _ := io.ReadAll(w.Body)
		var p struct {
			Code, Detail string
			Status       int
			Errors       []struct{ Location string }
		}
		if err := json.Unmarshal(b, &p); err != nil || w.Code != http.StatusBadRequest || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: %d, %s", tt.method, tt.path, w.Code, b)
			continue
		}
		if p.Code != "invalid" || p.Status != w.Code || !strings.Contains(p.Detail, tt.detail) || tt.field != "" && (len(p.Errors) == 0 || p.Errors[0].Location != tt.field) {
			t.Errorf("%s %s: %s", tt.method, tt.path, b)
		}
	}
}
