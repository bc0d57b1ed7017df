// Package ssh is what the command line knows of OpenSSH: the configuration for its client, the user's key, and the way of a
// connection through the agent's link, for which no port is opened.
//
// Layer: part of the front cli. It may import internal/cli/interrupt, lifecycle, api, errdefs, internal/sys.
package ssh

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/interrupt"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// VMs is what the commands need of lifecycle.Manager.
type VMs interface {
	List(ctx context.Context, all bool) ([]api.Sandbox, error)
	Inspect(ctx context.Context, id string, showEnv bool) (api.Sandbox, error)
}

// Front is what the commands need of the program.
type Front struct {
	Open    func() (home string, vms VMs, err error)
	Connect func(ctx context.Context, id string) (Guest, error)
	Args    func(low, high int) cobra.PositionalArgs
	IDs     cobra.CompletionFunc
	Stdin   io.Reader
	Stdout  io.Writer
}

// Commands are `ssh`, `ssh-config` and the hidden `ssh-proxy`.
func Commands(f Front) []*cobra.Command { return []*cobra.Command{f.ssh(), f.config(), f.proxy()} }

func (f Front) ssh() *cobra.Command {
	var tty bool
	cmd := &cobra.Command{
		Use: "ssh [flags] ID [-- COMMAND [ARG...]]", Short: "Log in to a running VM by OpenSSH",
		Long: `Ssh runs OpenSSH's client, which must be there, and joins it with the VM's sshd through the agent: no port is opened. Without a
command it is a login as root with a terminal; a command goes to the guest's shell, as ssh does it. The exit code is ssh's.`,
		Example:     "  smolvm ssh web\n  smolvm ssh web -- uname -a\n  smolvm ssh -t web -- top",
		Annotations: map[string]string{"guest": "1"}, // its exit codes are those of what runs there
		GroupID:     "run", Args: f.Args(1, -1), ValidArgsFunction: f.IDs,
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().BoolVarP(&tty, "tty", "t", false, "give a command a terminal too")
	cmd.RunE = func(cmd *cobra.Command, argv []string) error {
		client, err := exec.LookPath("ssh")
		if err != nil {
			return errdefs.Host.Errorf("ssh: %w", err).WithRemedy("apt-get install openssh-client")
		}
		id, argv := argv[0], argv[1:]
		if len(argv) > 0 && argv[0] == "--" {
			argv = argv[1:]
		}
		files, err := f.ready(cmd.Context(), id)
		if err != nil {
			return err
		}
		config, err := files.saveConfig(id)
		if err != nil {
			return err
		}
		args := []string{"ssh", "-F", config}
		if tty {
			args = append(args, "-t")
		}
		args = append(append(args, alias(id)), argv...)
		err = syscall.Exec(client, args, os.Environ()) //nolint:gosec // the user's own client
		return errdefs.Host.Errorf("ssh: run %s: %w", client, err)
	}
	return cmd
}

// ready checks that a VM runs, and returns where things are.
func (f Front) ready(ctx context.Context, id string) (files, error) {
	if err := api.ValidateID(id); err != nil {
		return files{}, err
	}
	home, vms, err := f.Open()
	if err != nil {
		return files{}, err
	}
	vm, err := vms.Inspect(ctx, id, false)
	if err != nil {
		return files{}, err
	}
	if vm.State != api.StateRunning {
		return files{}, errdefs.WrongState.Errorf("ssh: the VM %s is %s", id, vm.State).WithRemedy("smolvm start %s", id)
	}
	files, err := newFiles(home)
	if err != nil {
		return files, err
	}
	_, err = files.publicKey(ctx)
	return files, err
}

func (f Front) config() *cobra.Command {
	return &cobra.Command{
		Use: "ssh-config [ID]", Short: "Print what ssh, scp and rsync need to reach VMs",
		Long: `Ssh-config prints a part of an ssh_config for one VM, or for all. With it, "ssh smolvm-ID" works, and so does
everything that uses ssh. It stays right when the VM is stopped and started.`,
		Example: "  smolvm ssh-config >~/.ssh/smolvm.conf   # and \"Include smolvm.conf\" at the top of ~/.ssh/config\n  rsync -e \"ssh -F $HOME/.ssh/smolvm.conf\" -a site/ smolvm-web:/srv/",
		GroupID: "more", Args: f.Args(0, 1), ValidArgsFunction: f.IDs,
		RunE: func(cmd *cobra.Command, ids []string) error {
			for _, id := range ids {
				if err := api.ValidateID(id); err != nil {
					return err
				}
			}
			home, vms, err := f.Open()
			if err != nil {
				return err
			}
			if len(ids) == 1 {
				_, err = vms.Inspect(cmd.Context(), ids[0], false)
			} else {
				var all []api.Sandbox
				all, err = vms.List(cmd.Context(), true)
				for _, vm := range all {
					ids = append(ids, vm.ID)
				}
			}
			if err != nil {
				return err
			}
			return f.printConfig(cmd.Context(), home, ids)
		},
	}
}

func (f Front) printConfig(ctx context.Context, home string, ids []string) error {
	files, err := newFiles(home)
	if err != nil {
		return err
	}
	if _, err := files.publicKey(ctx); err != nil {
		return err
	}
	for _, id := range ids {
		text, err := files.config(id)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(f.Stdout, text[:len(text)-1]); err != nil {
			return err
		}
	}
	return nil
}

// Prepare makes a running VM ready for logins: its sshd runs, lets the user's key in, and its own keys are known.
func (f Front) Prepare(ctx context.Context, id string) error {
	files, err := f.ready(ctx, id)
	if err != nil {
		return err
	}
	g, err := f.Connect(ctx, id)
	if err != nil {
		return err
	}
	defer func() { _ = g.Close() }()
	return files.prepare(ctx, id, g)
}

// prepare makes a guest ready, and writes down who it is.
func (f files) prepare(ctx context.Context, id string, g Guest) error {
	key, err := f.publicKey(ctx)
	if err != nil {
		return err
	}
	keys, err := prepare(ctx, g, key)
	if err != nil {
		return err
	}
	return f.saveHostKeys(id, keys)
}

// proxy is what OpenSSH's client runs instead of opening a connection.
func (f Front) proxy() *cobra.Command {
	return &cobra.Command{
		Use: "ssh-proxy ID", Short: "Join standard input and output with a VM's sshd", Hidden: true, Args: f.Args(1, 1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			ctx, id := cmd.Context(), argv[0]
			files, err := f.ready(ctx, id)
			if err != nil {
				return err
			}
			g, err := f.Connect(ctx, id)
			if err != nil {
				return err
			}
			defer func() { _ = g.Close() }()
			if err := files.prepare(ctx, id, g); err != nil {
				return err
			}
			// It ends when its input does, and what sessions left in the background lives on.
			res, err := g.Exec(ctx, api.ExecRequest{
				Argv: []string{"/usr/sbin/sshd", "-i"}, Stdin: true, User: "root", Cwd: "/", OnDisconnect: api.DisconnectKeep,
			}, lifecycle.ExecIO{Stdin: f.Stdin, Stdout: f.Stdout})
			if err == nil && res.ExitCode != 0 {
				err = interrupt.ExitError{Code: res.ExitCode & 0xff}
			}
			return err
		},
	}
}
