package cli

import (
	"context"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli/figures"
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
	return figures.Env{
		Suites: a.BenchSuites, Args: value.OneOf, Progress: a.progress,
		Bench: func(ctx context.Context, b BenchOptions) ([]api.Suite, error) {
			o, err := a.options(true)
			if err != nil {
				return nil, err
			}
			return a.Bench(ctx, o, b)
		},
	}.Command()
}
