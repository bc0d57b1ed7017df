// Package watch holds the commands that tell what happens and what is used: events, stats.
//
// Layer: part of the front cli. It may import lifecycle, api, errdefs, and the parts of cli below it.
package watch

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/format"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// VMs tells of VMs.
type VMs interface {
	Watch(ctx context.Context, o lifecycle.EventsOptions, f func(api.Event) error) error
	Stats(ctx context.Context, id string) (api.Stats, error)
	List(ctx context.Context, all bool) ([]api.Sandbox, error)
}

// Env is what the commands need of the program.
type Env struct {
	VMs func() (VMs, error)
	// IDs completes ids of VMs, all or those that run, for up to limit arguments.
	IDs func(all bool, limit int) cobra.CompletionFunc
	// Args wants between low and high arguments.
	Args func(low, high int) cobra.PositionalArgs
}

// Commands returns the commands.
func (e Env) Commands() []*cobra.Command {
	return []*cobra.Command{e.events(), e.stats()}
}

func validate(ids []string) error {
	for _, id := range ids {
		if err := api.ValidateID(id); err != nil {
			return err
		}
	}
	return nil
}

func (e Env) events() *cobra.Command {
	var o lifecycle.EventsOptions
	var since string
	cmd := &cobra.Command{
		Use:   "events [flags] [ID...]",
		Short: "Show what happened to VMs",
		Long: `Events shows what happened to the VMs named, or to all: states with their reasons, the end of the command of "run -d",
troubles with disks. With -f it goes on, until the VMs named are removed.`,
		Example:           "  smolvm events web\n  smolvm events -f --since 10m --json | jq .type",
		GroupID:           "vm",
		Args:              e.Args(0, -1),
		ValidArgsFunction: e.IDs(true, -1),
	}
	f := cmd.Flags()
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on with what happens")
	f.StringVar(&since, "since", "", "only after this `TIME`, as 2006-01-02T15:04:05Z, or so long ago, as 10m")
	out := format.Add(cmd, "print one JSON object per line", api.Event{})
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		var err error
		if o.Since, err = instant(since, time.Now()); err == nil {
			err = validate(ids)
		}
		if err != nil {
			return err
		}
		vms, err := e.VMs()
		if err != nil {
			return err
		}
		o.IDs = ids
		return vms.Watch(cmd.Context(), o, func(ev api.Event) error {
			return out.Line(cmd.OutOrStdout(), ev, func() error {
				_, err := io.WriteString(cmd.OutOrStdout(), line(ev))
				return err
			})
		})
	}
	return cmd
}

// instant is a time that is given as such, or as how long ago it is.
func instant(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, errdefs.Invalid.Errorf("since: %q is neither a time such as 2006-01-02T15:04:05Z nor one such as 10m", text)
	}
	return t, nil
}

// line tells of an event in one line.
func line(e api.Event) string {
	words := []string{e.Time.Local().Format(time.RFC3339), show.Cell(e.VM), show.Cell(e.Type)}
	if e.State != "" {
		words = append(words, show.Cell(string(e.State)))
	}
	for _, k := range slices.Sorted(maps.Keys(e.Attrs)) {
		words = append(words, show.Cell(fmt.Sprintf("%s=%s", k, e.Attrs[k])))
	}
	if e.Reason != "" {
		words = append(words, "("+show.Cell(e.Reason)+")")
	}
	return strings.Join(words, " ") + "\n"
}
