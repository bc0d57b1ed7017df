package procs

import (
	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/session"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

func (e Env) top() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top ID [PS-OPTION...]",
		Short: "List all processes in a VM",
		Long: `Top runs ps(1) in a VM, with the options given, and shows what it prints, control characters by their numbers. Without
options it shows all but the kernel's own threads.
For what was started from outside only, see "smolvm ps ID".`,
		Example:           "  smolvm top web\n  smolvm top web -eo pid,pcpu,rss,args --sort=-pcpu",
		GroupID:           "run",
		Args:              e.Args(1, -1),
		ValidArgsFunction: e.complete(1, false),
	}
	cmd.Flags().SetInterspersed(false) // what follows the id is for ps
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		g, err := e.on(cmd, args[0])
		if err != nil {
			return err
		}
		defer func() { _ = g.Close() }()
		argv := append([]string{"ps"}, args[1:]...)
		if len(argv) == 1 {
			argv = append(argv, "-N", "--ppid", "2", "-p", "2", "-f") // without the kernel's own
		}
		res, err := g.Exec(cmd.Context(), api.ExecRequest{Argv: argv, OnDisconnect: api.DisconnectKill}, lifecycle.ExecIO{
			Stdout: &show.Escaper{W: cmd.OutOrStdout()}, Stderr: &show.Escaper{W: cmd.ErrOrStderr()},
		})
		if err != nil {
			return err
		}
		if res.Error != "" {
			return errdefs.Unavailable.Errorf("top: %s", res.Error).WithRemedy("smolvm exec %s -c 'apt-get install procps', or smolvm ps %s", args[0], args[0])
		}
		return session.ExitWith(res)
	}
	return cmd
}
