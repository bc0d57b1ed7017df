package value

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/errdefs"
)

// OneOf wants arguments that are among names.
func OneOf(what string, names []string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		for _, arg := range args {
			if !slices.Contains(names, arg) {
				return errdefs.Invalid.Errorf("%s: no %s %q; there are %s", cmd.Name(), what, arg, strings.Join(names, ", ")).
					WithRemedy("%s --help", cmd.CommandPath())
			}
		}
		return nil
	}
}

// Args wants between low and high arguments; high < 0 is any number.
func Args(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		var err *errdefs.Error
		switch {
		case len(args) < low:
			err = errdefs.Invalid.Errorf("%s: an argument is missing: %s", cmd.Name(), cmd.UseLine())
		case high >= 0 && len(args) > high:
			err = errdefs.Invalid.Errorf("%s: %q is one argument too many: %s", cmd.Name(), args[high], cmd.UseLine())
		default:
			return nil
		}
		return err.WithRemedy("%s --help", cmd.CommandPath())
	}
}
