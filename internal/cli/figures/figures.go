// Package figures holds the command that measures: bench.
//
// Layer: part of the front cli. It may import api, and the parts of cli below it.
package figures

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/interrupt"
	"github.com/smolvm/smolvm/internal/cli/show"
)

// Options say what to measure.
type Options struct {
	Suites   []string // none = all
	Runs     int      // 0 = each suite's own default
	Progress api.ProgressFunc
}

// Env is what the command needs of the program.
type Env struct {
	Bench  func(ctx context.Context, o Options) ([]api.Suite, error)
	Suites [][2]string // what there is to measure, each with a sentence
	// Args wants arguments that are among names.
	Args     func(what string, names []string) cobra.PositionalArgs
	Progress func() *show.Progress
}

// Command returns the command.
func (e Env) Command() *cobra.Command {
	var o Options
	var list strings.Builder
	var names []string
	for _, s := range e.Suites {
		fmt.Fprintf(&list, "\n  %-8s %s", s[0], s[1])
		names = append(names, s[0])
	}
	cmd := &cobra.Command{
		Use:   "bench [flags] [SUITE...]",
		Short: "Measure SmolVM on this host",
		Long: `Bench runs the suites named, or all, and prints their figures, most of them ratios to what is possible without us. The
exit code is 1 when one misses its goal.

Suites:` + list.String(),
		Example:           "  smolvm bench exec copy\n  smolvm bench boot --runs 10 --json",
		GroupID:           "more",
		Args:              e.Args("suite", names),
		ValidArgsFunction: cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp),
	}
	cmd.Flags().IntVar(&o.Runs, "runs", 0, "`N` pairs to measure per figure (default: each suite's own)")
	out := format.Add(cmd, "print one JSON object per suite", api.Suite{})
	cmd.RunE = func(cmd *cobra.Command, suites []string) error {
		p := e.Progress()
		defer p.Stop()
		o.Suites, o.Progress = suites, p.Report
		got, err := e.Bench(cmd.Context(), o)
		p.Stop()
		if perr := printSuites(cmd.OutOrStdout(), got, out); err == nil {
			err = perr
		}
		return err
	}
	return cmd
}

// printSuites prints the figures; one that misses its goal makes an exit code.
func printSuites(w io.Writer, suites []api.Suite, out *format.Flags) error {
	t := show.Table(w, "SUITE", "FIGURE", "VALUE", "GOAL", "OK")
	missed := false
	for _, s := range suites {
		if err := out.Print(w, s, func() error { return nil }); err != nil {
			return err
		}
		for _, f := range s.Figures {
			missed = missed || !f.OK
			value, ok := show.Figure(f)
			show.Row(t, s.Suite, f.Name, value, f.Goal, ok)
		}
	}
	if out.People() && len(suites) > 0 {
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if missed {
		return interrupt.ExitError{Code: 1}
	}
	return nil
}
