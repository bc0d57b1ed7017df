package smolvm_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestDocs compiles what docs/go.md shows.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("docs", "go.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllSubmatch(page, -1)
	if len(blocks) == 0 {
		t.Fatal("docs/go.md shows nothing")
	}
	code := `package snippets

import (
	"context"
	"errors"
	"fmt"

	"github.com/smolvm/smolvm"
	"github.com/smolvm/smolvm/errdefs"
)

var (
	_ = errors.New
	_ = fmt.Sprint
	_ = smolvm.New
	_ = errdefs.NotFound
)
`
	for i, b := range blocks {
		code += fmt.Sprintf("\nfunc snippet%d(ctx context.Context, err error) error {\n%s\nreturn nil\n}\n", i, b[1])
	}
	dir := t.TempDir()
	source, overlay := filepath.Join(dir, "snippets.go"), filepath.Join(dir, "overlay.json")
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(here, "docs", "snippets.go"): source}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{source: []byte(code), overlay: replace} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	vet := exec.CommandContext(t.Context(), "go", "vet", "-overlay", overlay, "./docs")
	vet.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false")
	if out, err := vet.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s%s", err, out, code)
	}
}
