// Package secret holds the flag and the commands about secrets, and finds their values, which nobody but the client does.
//
// Layer: part of the front cli. It may import api, errdefs, internal/sys, and the parts of cli below it.
package secret

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/sys/nodump"
)

// Flag is --secret, any number of times.
type Flag struct{ texts []string }

// Add adds it to cmd.
func (f *Flag) Add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.texts, "secret", nil, "let commands use a value without having it: `NAME=SOURCE@HOST`[,HOST][;prefix=TEXT][;query]; SOURCE is env:VARIABLE, file:PATH or cmd:COMMAND")
}

// Secrets are those that were given.
func (f *Flag) Secrets() ([]api.Secret, error) {
	var list []api.Secret
	for _, text := range f.texts {
		s, err := api.ParseSecret(text)
		if err == nil {
			s.Source, err = absolute(s.Source)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// absolute makes the path of a file one that is right from everywhere: it is kept.
func absolute(source string) (string, error) {
	path, ok := strings.CutPrefix(source, "file:")
	if !ok {
		return source, nil
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return "", errdefs.Host.Errorf("find %s: %w", path, err)
	}
	return "file:" + full, nil
}

// Resolve finds the values of a VM's secrets, where this program is run. It leaves no core dump from then on.
func Resolve(ctx context.Context, cmd *cobra.Command, id string, list []api.Secret) (api.SecretValues, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if err := nodump.Forbid(); err != nil {
		return nil, errdefs.Host.Errorf("secrets: %w", err)
	}
	return Sources{Lookup: os.LookupEnv, Stderr: cmd.ErrOrStderr()}.Resolve(ctx, id, list)
}

// VMs shows and changes secrets.
type VMs interface {
	Inspect(ctx context.Context, id string, showEnv bool) (api.Sandbox, error)
	SetSecrets(ctx context.Context, id string, change api.SecretChange) error
}

// Front is what the commands need of the program.
type Front struct {
	Open  func() (VMs, error)
	Args  func(low, high int) cobra.PositionalArgs
	Group cobra.PositionalArgs // of a command that only has others below it
	IDs   cobra.CompletionFunc
}

// Command is `secret` with all below it.
func (f Front) Command() *cobra.Command {
	cmd := &cobra.Command{
		Use: "secret", Short: "Show a VM's secrets, and give them other values",
		Long: `A secret is a value that commands in a VM can use without having it. --secret at run and create names it; the variable NAME
then holds a placeholder, and the VM's gateway puts the value into the headers of requests over TLS to the hosts of the secret.
The value is found where smolvm is run, at each start, and is kept in no file.`,
		Example: "  smolvm create --name web --secret 'GITHUB_TOKEN=env:GITHUB_TOKEN@api.github.com'\n  smolvm secret ls web\n  smolvm secret set web GITHUB_TOKEN=file:token",
		GroupID: "vm", Args: f.Group,

		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(f.list(), f.set())
	return cmd
}

// find opens a VM's record.
func (f Front) find(ctx context.Context, id string) (VMs, api.Sandbox, error) {
	if err := api.ValidateID(id); err != nil {
		return nil, api.Sandbox{}, err
	}
	vms, err := f.Open()
	if err != nil {
		return nil, api.Sandbox{}, err
	}
	vm, err := vms.Inspect(ctx, id, false)
	if err == nil && vm.State == api.StateBroken {
		err = errdefs.WrongState.Errorf("the VM %s is broken: %s", vm.ID, vm.Reason)
	}
	return vms, vm, err
}

func (f Front) list() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls ID", Aliases: []string{"list"}, Short: "List a VM's secrets",
		Long:    "Ls lists the secrets of a VM: who may get them, and where their values are found at the next start. Nobody shows values.",
		Example: "  smolvm secret ls web",
		Args:    f.Args(1, 1), ValidArgsFunction: f.IDs,
	}
	out := format.Add(cmd, "print them as JSON", api.Secret{})
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		_, vm, err := f.find(cmd.Context(), ids[0])
		if err != nil {
			return err
		}
		all := append([]api.Secret{}, vm.Config.Secrets...)
		return out.Print(cmd.OutOrStdout(), all, func() error {
			t := show.Table(cmd.OutOrStdout(), "NAME", "HOSTS", "SOURCE")
			for _, s := range all {
				show.Row(t, s.Name, strings.Join(s.Hosts, ","), s.Source)
			}
			return t.Flush()
		})
	}
	return cmd
}

func (f Front) set() *cobra.Command {
	return &cobra.Command{
		Use: "set ID NAME[=SOURCE]...", Short: "Give secrets of a VM other values",
		Long: `Set finds the values of secrets anew: requests of a VM that runs get them from then on, and its commands notice nothing. A
SOURCE is env:VARIABLE, file:PATH or cmd:COMMAND, and is kept for the next starts; without one, the source that is kept is asked.`,
		Example: "  smolvm secret set web GITHUB_TOKEN\n  smolvm secret set web GITHUB_TOKEN='cmd:pass show github'",
		Args:    f.Args(2, -1), ValidArgsFunction: f.IDs,
		RunE: func(cmd *cobra.Command, args []string) error { return f.change(cmd, args[0], args[1:]) },
	}
}

func (f Front) change(cmd *cobra.Command, id string, texts []string) error {
	ctx := cmd.Context()
	vms, vm, err := f.find(ctx, id)
	if err != nil {
		return err
	}
	change := api.SecretChange{Sources: map[string]string{}}
	var names []string
	for _, text := range texts {
		name, source, given := strings.Cut(text, "=")
		if slices.Contains(names, name) {
			return errdefs.Invalid.Errorf("secret set: %s is named twice", name)
		}
		names = append(names, name)
		if !given {
			continue
		}
		if source == "" {
			return errdefs.Invalid.Errorf("secret %s: it has no source", name).WithRemedy("name where its value is: %s=env:%s", name, name)
		}
		if err := api.ValidateSecretSource(name, source); err != nil {
			return err
		}
		if change.Sources[name], err = absolute(source); err != nil {
			return err
		}
	}
	all, err := change.Apply(vm.Config.Secrets)
	if err != nil {
		return err
	}
	var chosen []api.Secret
	for _, name := range names {
		i := slices.IndexFunc(all, func(s api.Secret) bool { return s.Name == name })
		if i < 0 {
			return errdefs.NotFound.Errorf("the VM %s has no secret %q", id, name).WithRemedy("smolvm secret ls %s", id)
		}
		chosen = append(chosen, all[i])
	}
	if change.Values, err = Resolve(ctx, cmd, id, chosen); err != nil {
		return err
	}
	if err := vms.SetSecrets(ctx, id, change); err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.Join(names, " "))
	return err
}
