package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/internal/cli/interrupt"
)

// TestRemedies: what our errors tell people to run are commands that there are.
func TestRemedies(t *testing.T) {
	a := &app{App: App{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}, sig: interrupt.Watch(t.Context())}
	defer a.sig.Close()
	root := a.root()
	call := regexp.MustCompile(`WithRemedy\("([^"]*)"`)
	named := regexp.MustCompile(`smolvm ([a-z]+(?: [a-z]+)?)`)
	flag := regexp.MustCompile(`--([a-z]+[a-z-]*)`)
	found := 0
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path) //nolint:gosec // our own sources
		if err != nil {
			return err
		}
		for _, remedy := range call.FindAllSubmatch(b, -1) {
			for _, m := range named.FindAllStringSubmatch(string(remedy[1]), -1) {
				found++
				words := strings.Fields(m[1])
				cmd, rest, err := root.Find(words)
				if err != nil || cmd == root || cmd.HasSubCommands() && len(rest) > 0 {
					t.Errorf("%s: there is no command %q (in %q)", path, m[0], remedy[1])
					continue
				}
				_, after, _ := strings.Cut(string(remedy[1]), m[0])
				if end := strings.IndexAny(after, ";,"); end >= 0 {
					after = after[:end]
				}
				cmd.InitDefaultHelpFlag()
				for _, f := range flag.FindAllStringSubmatch(after, -1) {
					if cmd.Flags().Lookup(f[1]) == nil && cmd.InheritedFlags().Lookup(f[1]) == nil {
						t.Errorf("%s: %q has no flag --%s (in %q)", path, m[0], f[1], remedy[1])
					}
				}
			}
		}
		return nil
	})
	if err != nil || found < 10 {
		t.Errorf("%d remedies, %v", found, err)
	}
}
