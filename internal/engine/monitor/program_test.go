package monitor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBuild: what a program is called stays the same as long as the program does, whatever it logs beside its version.
func TestBuild(t *testing.T) {
	path := filepath.Join(t.TempDir(), "monitor")
	write := func(version string) {
		script := "#!/bin/sh\necho 'Monitor " + version + "'\necho\necho $(date +%N) $$ exiting successfully\n"
		if err := os.WriteFile(path, []byte(script), 0o700); err != nil { //nolint:gosec // it is run
			t.Fatal(err)
		}
	}
	build := func() string {
		p := &Programs[string]{Title: "Monitor", Parse: func(said []byte) (string, error) {
			first, _, _ := strings.Cut(string(said), "\n")
			return first, nil
		}}
		found, err := p.Find(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		return found.Build
	}
	write("1.2")
	first := build()
	if again := build(); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	write("1.2 (patched)")
	if other := build(); other == first {
		t.Error("another program is the same build")
	}
}
