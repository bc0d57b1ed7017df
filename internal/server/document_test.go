package server

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

var update = flag.Bool("update", false, "write docs/openapi.json")

func bare(t *testing.T) *Server {
	t.Helper()
	return New(t.Context(), Options{VMs: new(lifecycle.Manager), Version: api.Version{Version: "v1"}, Log: slog.New(slog.DiscardHandler)})
}

// TestDocument: the document that clients are made from is the one in docs/.
func TestDocument(t *testing.T) {
	got, err := bare(t).Document()
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	golden := filepath.Join("..", "..", "docs", "openapi.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/openapi.json is of other routes; see the difference after: go test ./internal/server -run TestDocument -update")
	}
}

// TestDocumentIsWhole: every operation says what it is for, how it fails, and what its parameters mean; lists are lists.
func TestDocumentIsWhole(t *testing.T) {
	raw, err := bare(t).Document()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte(`"null"`)) && strings.Contains(string(raw), `"array",`) {
		t.Error("a list may be null")
	}
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID, Summary string
			Tags                 []string
			Parameters           []struct{ Name, Description string }
			Responses            map[string]struct {
				Content map[string]struct{ Schema map[string]any }
			}
		}
		Components struct {
			Schemas map[string]struct {
				Required   []string
				Properties map[string]struct{ Enum []string }
			}
			SecuritySchemes map[string]any
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || len(doc.Components.SecuritySchemes) != 1 {
		t.Errorf("version %q, %d security schemes", doc.OpenAPI, len(doc.Components.SecuritySchemes))
	}
	ids := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			name := method + " " + path
			if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" || len(op.Tags) != 1 {
				t.Errorf("%s: id %q, summary %q, tags %v", name, op.OperationID, op.Summary, op.Tags)
			}
			ids[op.OperationID] = true
			if op.Responses["default"].Content["application/problem+json"].Schema["$ref"] != "#/components/schemas/Problem" {
				t.Errorf("%s does not tell how it fails", name)
			}
			for _, p := range op.Parameters {
				if p.Description == "" {
					t.Errorf("%s: parameter %s is not explained", name, p.Name)
				}
			}
			// What is embedded in an input by a name with a small letter is not looked at.
			for _, part := range regexp.MustCompile(`{([^}]+)}`).FindAllStringSubmatch(path, -1) {
				if !slices.ContainsFunc(op.Parameters, func(p struct{ Name, Description string }) bool { return p.Name == part[1] }) {
					t.Errorf("%s: %s is no parameter", name, part[1])
				}
			}
		}
	}
	var classes, states []string
	for _, c := range errdefs.Classes() {
		classes = append(classes, string(c))
	}
	for _, s := range append(api.States(), api.StateBroken) {
		states = append(states, string(s))
	}
	for _, tt := range []struct {
		schema, field string
		want          []string
	}{{"Problem", "code", classes}, {"Sandbox", "state", states}} {
		got := doc.Components.Schemas[tt.schema].Properties[tt.field].Enum
		slices.Sort(got)
		slices.Sort(tt.want)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s.%s may be %v, and is one of %v", tt.schema, tt.field, got, tt.want)
		}
	}
	for _, name := range []string{"Sandbox", "Problem", "CommandResult"} {
		if len(doc.Components.Schemas[name].Required) == 0 {
			t.Errorf("%s: nothing is required in an answer", name)
		}
	}
	if len(doc.Components.Schemas["CreateRequest"].Required) != 0 {
		t.Errorf("a request requires %v", doc.Components.Schemas["CreateRequest"].Required)
	}
}

// TestNoRoute: what there is not is told as a problem, with the methods that there are.
func TestNoRoute(t *testing.T) {
	s := bare(t)
	for _, tt := range []struct {
		method, path, allow string
		status              int
	}{
		{"GET", "/v2/sandboxes", "", http.StatusNotFound},
		{"GET", "/", "", http.StatusNotFound},
		{"PUT", "/v1/version", "GET, HEAD", http.StatusMethodNotAllowed},
	} {
		w := ask(t, s, tt.method, tt.path, "")
		var p struct {
			Status int
			Code   string
		}
		b, _ := io.ReadAll(w.Body)
		if err := json.Unmarshal(b, &p); err != nil || w.Code != tt.status || p.Status != tt.status || p.Code == "" || w.Header().Get("Allow") != tt.allow {
			t.Errorf("%s %s: %d, %v, %s", tt.method, tt.path, w.Code, w.Header(), b)
		}
	}
}
