// Package images holds the commands about what VMs boot from: image build, ls, inspect, rm.
//
// Layer: part of the front cli. It may import api, and the parts of cli below it.
package images

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/show"
)

// Store is the cache of images. It belongs to a layer that this one may not see, so that main joins the two.
type Store interface {
	// List returns the images, and what is broken.
	List() ([]api.Image, []error)
	Inspect(name string) (api.Image, error)
	// Build makes an image, and the kernel that goes with it, unless they are there.
	Build(ctx context.Context, b Build) (api.Image, error)
	Remove(ctx context.Context, name string) error
	// BuildSSH lays out the default image for logins with a key.
	BuildSSH(ctx context.Context, r api.SSHImageRequest, progress api.ProgressFunc) (api.SSHImage, error)
}

// Build says which image to make.
type Build struct {
	Name     string
	Refresh  bool     // the newest, even if there is one
	Include  []string // packages over the default ones
	Progress api.ProgressFunc
}

// Env is what the commands need of the program.
type Env struct {
	Images   func() (Store, error)
	Progress func() *show.Progress
	Stdout   io.Writer
	Stderr   *os.File
	// Args wants between low and high arguments.
	Args  func(low, high int) cobra.PositionalArgs
	Group cobra.PositionalArgs // of a command that only has others below it
	Names cobra.CompletionFunc // completes names of images
}

func (e Env) println(format string, args ...any) error {
	_, err := fmt.Fprintf(e.Stdout, format+"\n", args...)
	return err
}

// Command is `image` with all below it.
func (e Env) Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "image",
		Short:   "Manage images: what VMs boot from",
		Example: "  smolvm image build\n  smolvm image ls",
		GroupID: "more",
		Args:    e.Group,

		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.build(), e.sshKey(), e.list(), e.inspect(), e.remove())
	return cmd
}

func (e Env) build() *cobra.Command {
	var b Build
	cmd := &cobra.Command{
		Use:   "build [flags]",
		Short: "Make an image, and the kernel that goes with it",
		Long: `Build makes the default image from Debian's archive, and fetches the kernel that VMs boot. What is there already is not
made again unless --refresh. With --include the image has more packages, and a name of its own; it is made again when it was made
with other ones.`,
		Example: `  smolvm image build
  smolvm image build --refresh
  smolvm image build --name science --include python3-numpy,python3-scipy`,
		Args:              e.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&b.Name, "name", api.DefaultImage, "the image's `NAME`")
	f.BoolVar(&b.Refresh, "refresh", false, "take the newest packages and kernel")
	f.StringSliceVar(&b.Include, "include", nil, "Debian `PACKAGES` over the default ones, with commas")
	out := format.Add(cmd, "print the image as JSON", api.Image{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		store, err := e.Images()
		if err != nil {
			return err
		}
		p := e.Progress()
		defer p.Stop()
		b.Progress = p.Report
		img, err := store.Build(cmd.Context(), b)
		if err != nil {
			return err
		}
		p.Stop()
		return out.Print(e.Stdout, img, func() error {
			return e.println("%s %s, %s", img.Name, img.Digest, units.BytesSize(float64(img.SizeBytes)))
		})
	}
	return cmd
}

func (e Env) list() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List images",
		Example:           "  smolvm image ls --json",
		Args:              e.Args(0, 0),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	out := format.Add(cmd, "print everything as JSON", api.Image{})
	cmd.RunE = func(*cobra.Command, []string) error {
		store, err := e.Images()
		if err != nil {
			return err
		}
		images, broken := store.List()
		for _, err := range broken {
			show.Report(e.Stderr, err)
		}
		return out.Print(e.Stdout, images, func() error {
			t := show.Table(e.Stdout, "NAME", "DIGEST", "SIZE", "AGE", "BUILDER")
			for _, i := range images {
				show.Row(t, i.Name, i.Digest[:min(len(i.Digest), 19)], units.BytesSize(float64(i.SizeBytes)), show.Age(i.CreatedAt, time.Now()), i.Builder)
			}
			return t.Flush()
		})
	}
	return cmd
}

func (e Env) inspect() *cobra.Command {
	cmd := &cobra.Command{
		Use: "inspect NAME", Short: "Show everything about an image with its packages, as JSON",
		Example:           "  smolvm image inspect debian | jq '.packages | length'",
		Args:              e.Args(1, 1),
		ValidArgsFunction: e.Names,
	}
	out := format.Add(cmd, "for symmetry: it always is", api.Image{})
	cmd.RunE = func(_ *cobra.Command, names []string) error {
		store, err := e.Images()
		if err != nil {
			return err
		}
		img, err := store.Inspect(names[0])
		if err != nil {
			return err
		}
		return out.Print(e.Stdout, img, nil)
	}
	return cmd
}

func (e Env) remove() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm NAME...", Short: "Remove images that no running VM uses",
		Example:           "  smolvm image rm science",
		Args:              e.Args(1, -1),
		ValidArgsFunction: e.Names,
	}
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		store, err := e.Images()
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := store.Remove(cmd.Context(), n); err != nil {
				return err
			}
			if err := e.println("%s", show.Cell(n)); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}
