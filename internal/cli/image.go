package cli

import (
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/value"
)

func (a *app) imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "image",
		Short:   "Manage images: what VMs boot from",
		Example: "  smolvm image build\n  smolvm image ls",
		GroupID: "more",
		Args:    a.knownCommand,

		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.imageBuildCommand(), a.imageListCommand(), a.imageInspectCommand(), a.imageRemoveCommand())
	return cmd
}

func (a *app) imageBuildCommand() *cobra.Command {
	var b ImageBuild
	cmd := &cobra.Command{
		Use:   "build [flags]",
		Short: "Make an image, and the kernel that goes with it",
		Long: `Build makes the default image from Debian's archive, and fetches the kernel that VMs boot. What is there already is not
made again unless --refresh. With --include the image has more packages, and a name of its own.`,
		Example: `  smolvm image build
  smolvm image build --refresh
  smolvm image build --name science --include python3-numpy,python3-scipy`,
		Args:              value.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&b.Name, "name", api.DefaultImage, "the image's `NAME`")
	f.BoolVar(&b.Refresh, "refresh", false, "take the newest packages and kernel")
	f.StringSliceVar(&b.Include, "include", nil, "Debian `PACKAGES` over the default ones, with commas")
	out := format.Add(cmd, "print the image as JSON", api.Image{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.open(false)
		if err != nil {
			return err
		}
		p := a.progress()
		defer p.Stop()
		b.Progress = p.Report
		img, err := s.Images.Build(cmd.Context(), b)
		if err != nil {
			return err
		}
		p.Stop()
		return out.Print(a.Stdout, img, func() error {
			return a.println("%s %s, %s", img.Name, img.Digest, units.BytesSize(float64(img.SizeBytes)))
		})
	}
	return cmd
}

func (a *app) imageListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List images",
		Example:           "  smolvm image ls --json",
		Args:              value.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	out := format.Add(cmd, "print everything as JSON", api.Image{})
	cmd.RunE = func(*cobra.Command, []string) error {
		s, err := a.open(false)
		if err != nil {
			return err
		}
		images, broken := s.Images.List()
		for _, err := range broken {
			show.Report(a.Stderr, err)
		}
		return out.Print(a.Stdout, images, func() error {
			t := show.Table(a.Stdout, "NAME", "DIGEST", "SIZE", "AGE", "BUILDER")
			for _, i := range images {
				show.Row(t, i.Name, i.Digest[:min(len(i.Digest), 19)], units.BytesSize(float64(i.SizeBytes)), show.Age(i.CreatedAt, time.Now()), i.Builder)
			}
			return t.Flush()
		})
	}
	return cmd
}

func (a *app) imageInspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "inspect NAME", Short: "Show everything about an image with its packages, as JSON",
		Example:           "  smolvm image inspect debian | jq '.packages | length'",
		Args:              value.Args(1, 1),
		ValidArgsFunction: a.completeImages,
	}
	out := format.Add(cmd, "for symmetry: it always is", api.Image{})
	cmd.RunE = func(_ *cobra.Command, names []string) error {
		s, err := a.open(false)
		if err != nil {
			return err
		}
		img, err := s.Images.Inspect(names[0])
		if err != nil {
			return err
		}
		return out.Print(a.Stdout, img, nil)
	}
	return cmd
}

func (a *app) imageRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm NAME...", Short: "Remove images that no running VM uses",
		Example:           "  smolvm image rm science",
		Args:              value.Args(1, -1),
		ValidArgsFunction: a.completeImages,
	}
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		s, err := a.open(false)
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := s.Images.Remove(cmd.Context(), n); err != nil {
				return err
			}
			if err := a.println("%s", show.Cell(n)); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}
