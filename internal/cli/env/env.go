// Package env holds the commands about the environment of a VM's commands: env ls, env set, env unset.
//
// Layer: part of the front cli. It may import api, errdefs, and the parts of cli below it.
package env

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/value"
)

// VMs shows and changes environments.
type VMs interface {
	Inspect(ctx context.Context, id string, showEnv bool) (api.Sandbox, error)
	SetEnv(ctx context.Context, id string, change api.EnvChange) (map[string]string, error)
}

// Front is what the commands need of the program.
type Front struct {
	Open  func() (VMs, error)
	Args  func(low, high int) cobra.PositionalArgs
	Group cobra.PositionalArgs // of a command that only has others below it
	IDs   cobra.CompletionFunc
}

// Command is `env` with all below it.
func (f Front) Command() *cobra.Command {
	cmd := &cobra.Command{
		Use: "env", Short: "Show and change the environment of a VM's commands",
		Long: `The environment of a VM is that of every command, login and service that is started in it: what -e says at create, and
what these commands change since, also while the VM runs. What runs already keeps what it has.`,
		Example: "  smolvm env set web -e API_KEY -e MODE=test\n  smolvm env ls web\n  smolvm env unset web MODE",
		GroupID: "vm", Args: f.Group,

		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(f.list(), f.set(), f.unset())
	return cmd
}

// Variable is one of a VM's.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func variables(env map[string]string) []Variable {
	all := []Variable{}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		all = append(all, Variable{name, env[name]})
	}
	return all
}

func (f Front) list() *cobra.Command {
	var values bool
	cmd := &cobra.Command{
		Use: "ls [flags] ID", Aliases: []string{"list"}, Short: "List a VM's variables",
		Long:    "Ls lists the variables of a VM, whose values may be secrets: they are masked without --show.",
		Example: "  smolvm env ls web\n  smolvm env ls --show --json web",
		Args:    f.Args(1, 1), ValidArgsFunction: f.IDs,
	}
	cmd.Flags().BoolVar(&values, "show", false, "the values too")
	out := format.Add(cmd, "print them as JSON", Variable{})
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		vms, err := f.open(ids[0])
		if err != nil {
			return err
		}
		vm, err := vms.Inspect(cmd.Context(), ids[0], values)
		if err != nil {
			return err
		}
		if vm.State == api.StateBroken {
			return errdefs.WrongState.Errorf("the VM %s is broken: %s", vm.ID, vm.Reason)
		}
		all := variables(vm.Config.Env)
		return out.Print(cmd.OutOrStdout(), all, func() error {
			t := show.Table(cmd.OutOrStdout(), "NAME", "VALUE")
			for _, v := range all {
				show.Row(t, v.Name, v.Value)
			}
			return t.Flush()
		})
	}
	return cmd
}

func (f Front) open(id string) (VMs, error) {
	if err := api.ValidateID(id); err != nil {
		return nil, err
	}
	return f.Open()
}

func (f Front) set() *cobra.Command {
	var given value.Env
	var replace bool
	cmd := &cobra.Command{
		Use: "set [flags] ID", Short: "Set variables of a VM",
		Long: `Set sets variables of a VM, for all that is started in it from then on. A value that is given as NAME alone, or in a file,
is in nobody's list of processes.`,
		Example: "  smolvm env set web -e API_KEY\n  smolvm env set web --env-file .env --replace",
		Args:    f.Args(1, 1), ValidArgsFunction: f.IDs,
	}
	given.Flags(cmd.Flags())
	cmd.Flags().BoolVar(&replace, "replace", false, "drop all others")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		env, err := given.Resolve(os.LookupEnv)
		if err != nil {
			return err
		}
		if len(env) == 0 && !replace {
			return errdefs.Invalid.Errorf("env set: there is nothing to set").WithRemedy("smolvm env set --help")
		}
		return f.change(cmd, ids[0], api.EnvChange{Set: env, Replace: replace})
	}
	return cmd
}

func (f Front) unset() *cobra.Command {
	return &cobra.Command{
		Use: "unset ID NAME...", Short: "Unset variables of a VM",
		Example: "  smolvm env unset web API_KEY",
		Args:    f.Args(2, -1), ValidArgsFunction: f.IDs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.change(cmd, args[0], api.EnvChange{Unset: args[1:]})
		},
	}
}

// change does it and prints the names that are set now.
func (f Front) change(cmd *cobra.Command, id string, c api.EnvChange) error {
	if err := c.Validate(); err != nil {
		return err
	}
	vms, err := f.open(id)
	if err != nil {
		return err
	}
	env, err := vms.SetEnv(cmd.Context(), id, c)
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(env))
	for i, n := range names {
		names[i] = show.Cell(n)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.Join(names, " "))
	return err
}
