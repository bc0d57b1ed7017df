package cli

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli/interrupt"
	"github.com/smolvm/smolvm/internal/cli/manual"
)

// tree is all commands.
func tree(t *testing.T) *cobra.Command {
	t.Helper()
	a := &app{App: App{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: api.Version{Version: "v1.2.3"}, BenchSuites: [][2]string{{"exec", "latency"}},
		Bench: func(context.Context, OpenOptions, BenchOptions) ([]api.Suite, error) { return nil, nil },
	}, sig: interrupt.Watch(t.Context())}
	t.Cleanup(a.sig.Close)
	return a.root()
}

func each(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, c := range cmd.Commands() {
		each(c, f)
	}
}

// TestFormats: what prints JSON prints by templates too, unless the JSON is the outcome of a guest's command.
func TestFormats(t *testing.T) {
	found := 0
	each(tree(t), func(cmd *cobra.Command) {
		json, format := cmd.Flags().Lookup("json"), cmd.Flags().Lookup("format")
		if json == nil || cmd.Annotations[guestCommand] != "" {
			return
		}
		found++
		if format == nil {
			t.Errorf("%s has --json and no --format: its flags come from internal/cli/format", cmd.CommandPath())
		}
	})
	if found < 15 {
		t.Errorf("only %d commands print JSON", found)
	}
}

// TestManual: each command has its page, and man has nothing to complain about.
func TestManual(t *testing.T) {
	groff, err := exec.LookPath("groff")
	pages := manual.Pages(tree(t))
	if len(pages) < 40 {
		t.Errorf("only %d pages", len(pages))
	}
	for _, p := range pages {
		if !strings.Contains(p.Text, ".SH DESCRIPTION\n") || !strings.Contains(p.Text, " \"1\" \"\" ") {
			t.Errorf("%s has no description, or a date", p.Name)
		}
		if err != nil {
			continue // no groff
		}
		cmd := exec.CommandContext(t.Context(), groff, "-ww", "-man", "-Tutf8", "-z") //nolint:gosec // found in PATH
		cmd.Stdin = strings.NewReader(p.Text)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v, %s", p.Name, err, out)
		}
	}
}
