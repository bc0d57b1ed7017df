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
