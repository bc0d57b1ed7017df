package cli

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/interrupt"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/value"
)

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "version",
		Short:             "Show which program this is",
		Example:           "  smolvm version --json",
		GroupID:           "more",
		Args:              value.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	out := format.Add(cmd, "print it as JSON", api.Version{})
	cmd.RunE = func(*cobra.Command, []string) error {
		v := a.Version
		agent := "unknown: not built by script/build"
		if v.AgentDigest != "" {
			agent = v.AgentDigest
		}
		return out.Print(a.Stdout, v, func() error {
			return a.println("smolvm %s\ncommit %s\nagent %s\n%s %s/%s, protocol %d to %d",
				v.Version, v.Commit, agent, v.Go, runtime.GOOS, runtime.GOARCH, v.ProtocolMin, v.ProtocolMax)
		})
	}
	return cmd
}

func (a *app) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check what this host can do, and how to mend what it cannot",
		Long: `Doctor looks at everything that SmolVM needs of this host. Each line is ok, a warning (it works, but less well), or a
failure, with what mends it. The exit code is 1 when there is a failure.`,
		Example:           "  smolvm doctor",
		GroupID:           "more",
		Args:              value.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	out := format.Add(cmd, "print it as JSON", api.Check{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o, err := a.options(false)
		if err != nil {
			return err
		}
		p := a.progress()
		defer p.Stop()
		p.Report(api.Progress{Stage: "doctor", Detail: "looking at this host"})
		checks, err := a.Doctor(cmd.Context(), o)
		if err != nil {
			return err
		}
		p.Stop()
		err = out.Print(a.Stdout, checks, func() error {
			_, err := fmt.Fprint(a.Stdout, show.Checks(checks))
			return err
		})
		for _, c := range checks {
			if c.Status == api.CheckFailure && err == nil {
				err = interrupt.ExitError{Code: 1}
			}
		}
		return err
	}
	return cmd
}

func (a *app) benchCommand() *cobra.Command {
	var b BenchOptions
	var list strings.Builder
	var names []string
	for _, s := range a.BenchSuites {
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
		Args:              value.OneOf("suite", names),
		ValidArgsFunction: cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp),
	}
	cmd.Flags().IntVar(&b.Runs, "runs", 0, "`N` pairs to measure per figure (default: each suite's own)")
	out := format.Add(cmd, "print one JSON object per suite", api.Suite{})
	cmd.RunE = func(cmd *cobra.Command, suites []string) error {
		o, err := a.options(true)
		if err != nil {
			return err
		}
		p := a.progress()
		defer p.Stop()
		b.Suites, b.Progress = suites, p.Report
		got, err := a.Bench(cmd.Context(), o, b)
		p.Stop()
		if perr := a.printSuites(got, out); err == nil {
			err = perr
		}
		return err
	}
	return cmd
}

// printSuites prints the figures; one that misses its goal makes an exit code.
func (a *app) printSuites(suites []api.Suite, out *format.Flags) error {
	t := show.Table(a.Stdout, "SUITE", "FIGURE", "VALUE", "GOAL", "OK")
	missed := false
	for _, s := range suites {
		if err := out.Print(a.Stdout, s, func() error { return nil }); err != nil {
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
