package smolvm

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// TestSecrets: values travel beside the configuration, and with each start; one that is set while the VM does not run, with the next.
func TestSecrets(t *testing.T) {
	var asked []string
	running := true
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var body struct {
			Secrets []api.Secret      `json:"secrets"`
			Start   map[string]string `json:"secret_values"`
			Values  map[string]string `json:"values"`
		}
		_ = json.Unmarshal(b, &body)
		asked = append(asked, fmt.Sprint(r.Method, " ", r.URL.Path, " ", len(body.Secrets), body.Start, body.Values))
		switch {
		case r.URL.Path == "/v1/version":
			_ = json.NewEncoder(w).Encode(api.Version{Version: "v1"})
		case r.Method == http.MethodPatch && !running:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"detail":"it does not run","code":"wrong_state"}`)
		case r.Method == http.MethodPatch:
			_, _ = io.WriteString(w, `{"secrets":[]}`)
		default:
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "event: result\ndata: {\"id\":\"web\",\"state\":\"running\"}\n\n")
		}
	}))
	t.Cleanup(s.Close)
	ctx := t.Context()
	cfg := Config{Secrets: []api.Secret{{Name: "KEY", Hosts: []string{"api.example.com"}}}}
	vm, err := New(ctx, cfg, WithHost(s.URL, "token"), WithSecrets(map[string]string{"KEY": "first-value"}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = vm.Close() }()
	steps := []func() error{
		func() error { return vm.Start(ctx) },
		func() error { return vm.SetSecrets(ctx, map[string]string{"KEY": "second-value"}) },
		func() error { running = false; return vm.SetSecrets(ctx, map[string]string{"KEY": "third-value"}) },
		func() error { return vm.Start(ctx) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if err := vm.SetSecrets(ctx, map[string]string{"KEY": "a\nb"}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("a line's end: %v", err)
	}
	want := []string{
		"GET /v1/version 0 map[] map[]",
		"POST /v1/sandboxes 1 map[KEY:first-value] map[]",
		"POST /v1/sandboxes/web/start 0 map[KEY:first-value] map[]",
		"PATCH /v1/sandboxes/web/secrets 0 map[] map[KEY:second-value]",
		"PATCH /v1/sandboxes/web/secrets 0 map[] map[KEY:third-value]",
		"POST /v1/sandboxes/web/start 0 map[KEY:third-value] map[]",
	}
	if len(asked) < len(want) || !slices.Equal(asked[:len(want)], want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
}
