package cli

import (
	"context"
	"os"
	"testing"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli/interrupt"
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
