package cli

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/value"
)

func (a *app) execCommand() *cobra.Command {
	var c commandFlags
	var env value.Env
	var dir, user string
	cmd := &cobra.Command{
		Use:   "exec [flags] ID [--] COMMAND [ARG...]",
		Short: "Run a command in a running VM",
		Long: `Exec runs a command in a VM that runs, with our standard output and error. Flags may stand before or after the id;
they end at the command's name. The command ends with us: when this program is killed, so is the command. What it
left in the background lives on.

Exit codes are those of "smolvm run".`,
		Example: `  smolvm exec web -- ls -l /srv
  smolvm exec web -c 'cd /srv && git log --oneline | head'
  smolvm exec -i web -- tar -x -C /srv <site.tar
  smolvm exec --timeout 30s -u nobody -w /tmp web -- ./job
  smolvm exec --script setup.sh web`,
		GroupID:           "run",
		Annotations:       map[string]string{guestCommand: "1"},
		ValidArgsFunction: a.completeIDs(false, 1),
	}
	c.flags(cmd)
	f := cmd.Flags()
	env.Flags(f)
	f.StringVarP(&dir, "workdir", "w", "", "`DIR` where it runs (default: the VM's, else the user's home)")
	f.StringVarP(&user, "user", "u", "", "`USER` who runs it: name or uid[:gid] (default: the VM's, else root)")
	f.BoolVar(&a.json, "json", false, "print the outcome and the output as JSON")
	cmd.RunE = func(cmd *cobra.Command, argv []string) error {
		id, argv, err := idAndRest(cmd, argv)
		if err != nil {
			return err
		}
		if f := cmd.Flags().Lookup("help"); f != nil && f.Changed { // after the id
			return cmd.Help()
		}
		req, err := c.request(cmd, argv, a.Stdin)
		if err != nil {
			return err
		}
		if req.Env, err = env.Resolve(os.LookupEnv); err != nil {
			return err
		}
		req.Cwd, req.User = dir, user
		if err := req.Validate(); err != nil {
			return err
		}
		return a.exec(cmd, id, req)
	}
	return cmd
}

// idAndRest takes the id, and the flags after it: parsing ended there.
func idAndRest(cmd *cobra.Command, argv []string) (string, []string, error) {
	if len(argv) == 0 {
		return "", nil, errdefs.Invalid.Errorf("exec: the VM's id is missing: %s", cmd.UseLine()).WithRemedy("smolvm ls")
	}
	id := argv[0]
	if err := api.ValidateID(id); err != nil {
		return "", nil, err
	}
	// Parsing again keeps what was found before the id.
	if err := cmd.Flags().Parse(argv[1:]); err != nil {
		return "", nil, cmd.FlagErrorFunc()(cmd, err)
	}
	return id, cmd.Flags().Args(), nil
}

func (a *app) exec(cmd *cobra.Command, id string, req api.ExecRequest) error {
	s, err := a.open(false)
	if err != nil {
		return err
	}
	g, err := s.VMs.Connect(cmd.Context(), id)
	if err != nil {
		return err
	}
	defer func() { _ = g.Close() }()
	return a.guestExec(cmd.Context(), g, id, req)
}
