package server

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/internal/server/web"
)

// ask sends a request of this process's.
func ask(t *testing.T, s *Server, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(web.WithPeer(t.Context(), web.Peer{PID: os.Getpid()}), method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(w, r)
	return w
}

// TestProblems: what is wrong with a request is told as a problem with its class and its field, and nothing is asked of a VM.
func TestProblems(t *testing.T) {
	s := bare(t)
	for _, tt := range []struct{ method, path, body, field, detail string }{
		{"POST", "/v1/sandboxes/web/exec", `{"argv":3}`, "body.argv", "expected array"},
		{"POST", "/v1/sandboxes/web/exec", `{"foo":3}`, "body.foo", "unexpected property"},
		{"POST", "/v1/sandboxes/-/exec", `{"argv":["true"]}`, "path.id", "1 to 63 characters"},
		{"GET", "/v1/sandboxes?frob=1", ``, "query.frob", "unknown query parameter"},
		{"GET", "/v1/sandboxes?all", ``, "query.all", "has no value"},
		{"DELETE", "/v1/sandboxes/web?force=", ``, "query.force", "has no value"},
		{"POST", "/v1/sandboxes", `{"cpus":33}`, "body.cpus", "<= 32"},
		{"POST", "/v1/sandboxes", `{"memory_mib":-1}`, "body.memory_mib", ">= 0"},
		{"POST", "/v1/sandboxes", `{"id":"x","ports":[{"guest_port":70000}]}`, "body.ports[0].guest_port", "<= 65535"},
		{"POST", "/v1/sandboxes", `{"ttl_ms":1e300}`, "body.ttl_ms", "<= 9"},
		{"POST", "/v1/sandboxes/web/exec", `{"tty":{"rows":70000}}`, "body.tty.rows", "<= 65535"},
		{"POST", "/v1/sandboxes", `{"owner":"nobody"}`, "", "neither keep nor client"},
	} {
		w := ask(t, s, tt.method, tt.path, tt.body)
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
