// Package watch holds the HTTP API's routes that tell what VMs do: stats, logs, events.
//
// Layer: part of the front server. It may import internal/server/web, lifecycle, api, errdefs.
package watch

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/server/web"
)

// VMs tells what they do.
type VMs interface {
	Inspect(ctx context.Context, id string, showEnv bool) (api.Sandbox, error)
	Stats(ctx context.Context, id string) (api.Stats, error)
	Logs(ctx context.Context, id string, kind lifecycle.LogKind, follow bool, w io.Writer) error
	Watch(ctx context.Context, o lifecycle.EventsOptions, f func(api.Event) error) error
}

// Routes adds the operations.
type Routes struct{ VMs VMs }

const tag = "sandboxes"

// Register adds them to the API.
func (r Routes) Register(to huma.API) {
	web.Register(to, huma.Operation{OperationID: "stats", Method: http.MethodGet, Path: "/v1/sandboxes/{id}/stats", Tags: []string{tag}, Summary: "Tell what a VM uses"}, r.stats)
	op := huma.Operation{
		OperationID: "logs", Method: http.MethodGet, Path: "/v1/sandboxes/{id}/logs", Tags: []string{tag}, Summary: "Tell what a VM printed",
		Description: "The bytes are the guest's own: control characters too. With follow it goes on until the VM ends.",
	}
	web.Describe(&op, http.StatusOK, map[string]*huma.Schema{"text/plain": {Type: huma.TypeString}})
	web.Raw(to, op, r.logs)
	op = huma.Operation{
		OperationID: "events", Method: http.MethodGet, Path: "/v1/sandboxes/{id}/events", Tags: []string{tag}, Summary: "Tell what happened to a VM",
		Description: "Each event's data is an Event. With follow it goes on until the VM is removed.",
	}
	describe(to, &op)
	web.Raw(to, op, r.events)
	op = huma.Operation{
		OperationID: "all-events", Method: http.MethodGet, Path: "/v1/events", Tags: []string{tag}, Summary: "Tell what happened to all VMs",
		Description: "Each event's data is an Event. With follow it goes on until the client leaves.",
	}
	describe(to, &op)
	web.Raw(to, op, r.allEvents)
}

func describe(to huma.API, op *huma.Operation) {
	web.DescribeEvents(to, op, map[string]any{"event": api.Event{}})
}

func (r Routes) stats(ctx context.Context, in *struct{ web.VM }) (*web.Body[api.Stats], error) {
	if err := in.Check(); err != nil {
		return nil, err
	}
	s, err := r.VMs.Stats(ctx, in.ID)
	return &web.Body[api.Stats]{Body: s}, err
}

type logsInput struct {
	web.VM
	Kind   lifecycle.LogKind `query:"kind" enum:"output,console" default:"output" doc:"output: of the command that the VM was made for; console: of the guest's kernel"`
	Follow bool              `query:"follow" doc:"go on as it comes"`
}

func (r Routes) logs(ctx context.Context, in *logsInput, a *web.Answer) error {
	if err := in.Check(); err != nil {
		return err
	}
	if _, err := r.VMs.Inspect(ctx, in.ID, false); err != nil {
		return err
	}
	if in.Follow {
		var cancel context.CancelFunc
		ctx, cancel = web.UntilStop(ctx)
		defer cancel()
	}
	return r.VMs.Logs(ctx, in.ID, in.Kind, in.Follow, a.Stream("text/plain; charset=utf-8"))
}

// Span says which events are wanted.
type Span struct {
	Follow bool      `query:"follow" doc:"go on as they come"`
	Since  time.Time `query:"since" doc:"not those before"`
}

func (r Routes) events(ctx context.Context, in *struct {
	web.VM
	Span
}, a *web.Answer,
) error {
	if err := in.Check(); err != nil {
		return err
	}
	if _, err := r.VMs.Inspect(ctx, in.ID, false); err != nil {
		return err
	}
	return r.pass(ctx, in.Span, []string{in.ID}, a)
}

func (r Routes) allEvents(ctx context.Context, in *struct{ Span }, a *web.Answer) error {
	return r.pass(ctx, in.Span, nil, a)
}

func (r Routes) pass(ctx context.Context, s Span, ids []string, a *web.Answer) error {
	ctx, cancel := web.UntilStop(ctx)
	defer cancel()
	events := a.Events()
	defer events.Close()
	err := r.VMs.Watch(ctx, lifecycle.EventsOptions{IDs: ids, Since: s.Since, Follow: s.Follow}, func(e api.Event) error { return events.Send("event", e) })
	events.Finish(ctx, err)
	return nil
}
