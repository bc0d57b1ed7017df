package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/internal/cli/show"
)

// completeIDs completes the ids of VMs, all or the live ones, for up to limit arguments; limit < 0 is any number.
func (a *app) completeIDs(all bool, limit int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, have []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if limit >= 0 && len(have) >= limit {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		s, err := a.open(false)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		vms, err := s.VMs.List(cmd.Context(), all)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var ids []cobra.Completion
		for _, vm := range vms {
			if !slices.Contains(have, vm.ID) {
				ids = append(ids, cobra.CompletionWithDesc(show.Cell(vm.ID), string(vm.State)))
			}
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeImages completes the names of images.
func (a *app) completeImages(_ *cobra.Command, have []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	s, err := a.open(false)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	images, _ := s.Images.List()
	var names []cobra.Completion
	for _, i := range images {
		if i.Name != "" && !slices.Contains(have, i.Name) {
			names = append(names, i.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
