// Package web is what all routes of the HTTP API share: how an operation is registered, and how failures and streams look.
//
// Layer: part of the front server. It may import api, errdefs.
package web

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// EventStream is the media type of server-sent events.
const EventStream = "text/event-stream"

// Register adds an operation whose failures are problems.
func Register[I, O any](to huma.API, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	patient(&op)
	huma.Register(to, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		if err != nil {
			return nil, ProblemOf(err)
		}
		return out, nil
	})
}

// patient takes huma's own deadline of a body away: it counts from the request's beginning, stays on the connection when the
// body is there, and then ends what takes longer than it. The server has a deadline of its own for each piece of a body.
func patient(op *huma.Operation) {
	if op.BodyReadTimeout == 0 {
		op.BodyReadTimeout = -1
	}
}

// Body is an answer that is nothing but v as JSON.
type Body[T any] struct{ Body T }

// Long adds an operation that may take longer than a second. A client that accepts server-sent events gets events
// "progress" (api.Progress) and at the end either "result" or "error" (Problem); every other client gets the result alone.
func Long[I, T any](to huma.API, op huma.Operation, f func(context.Context, *I, api.ProgressFunc) (T, error)) {
	status := op.DefaultStatus
	if status == 0 {
		status = http.StatusOK
	}
	schema := to.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "Result")
	events := eventsSchema(to, map[string]reflect.Type{"progress": reflect.TypeFor[api.Progress](), "result": reflect.TypeFor[T]()})
	Describe(&op, status, map[string]*huma.Schema{"application/json": schema, EventStream: events})
	patient(&op)
	huma.Register(to, op, func(_ context.Context, in *I) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(c huma.Context) {
			if !strings.Contains(c.Header("Accept"), EventStream) {
				v, err := f(c.Context(), in, nil)
				answer(c, status, v, err)
				return
			}
			events := NewEvents(c)
			defer events.Close()
			v, err := f(c.Context(), in, func(p api.Progress) { events.Try("progress", p) })
			if err != nil {
				events.Try("error", ProblemOf(err))
				return
			}
			events.Try("result", v)
		}}, nil
	})
}

// answer writes v, or err as a problem.
func answer(c huma.Context, status int, v any, err error) {
	if err != nil {
		Refuse(c, err)
		return
	}
	c.SetHeader("Content-Type", "application/json")
	c.SetStatus(status)
	enc := json.NewEncoder(c.BodyWriter())
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // a client that has gone needs no answer
}

// Refuse answers with err as a problem, where nothing was answered yet.
func Refuse(c huma.Context, err error) {
	p := ProblemOf(err)
	c.SetHeader("Content-Type", problemType)
	c.SetStatus(p.Status)
	_ = json.NewEncoder(c.BodyWriter()).Encode(p)
}

// Describe documents an answer that huma does not derive from a type.
func Describe(op *huma.Operation, status int, content map[string]*huma.Schema) {
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	types := map[string]*huma.MediaType{}
	for name, schema := range content {
		types[name] = &huma.MediaType{Schema: schema}
	}
	op.Responses[code(status)] = &huma.Response{Description: http.StatusText(status), Content: types}
}

// VM is what operations on one VM have in their path.
type VM struct {
	ID string `path:"id" doc:"the VM" example:"web" maxLength:"63" pattern:"^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$" patternDescription:"1 to 63 characters of a-z, 0-9, _ and -, with a letter or digit at both ends"`
}

// Check refuses an id that none can have.
func (v VM) Check() error { return api.ValidateID(v.ID) }

var _ huma.StatusError = (*Problem)(nil)

// Problem is a failure as RFC 9457 has it.
type Problem struct {
	Type   string        `json:"type" doc:"urn:smolvm:error: and the class"`
	Title  string        `json:"title" doc:"the kind of the failure in words"`
	Status int           `json:"status" doc:"the answer's status"`
	Detail string        `json:"detail" doc:"what failed, and why"`
	Code   errdefs.Class `json:"code" enum:"invalid,not_found,already_exists,wrong_state,timeout,unavailable,host,image,network,engine,denied,exhausted,internal" doc:"the class, from which clients choose their exception"`
	Cause  string        `json:"cause,omitempty" doc:"the innermost reason"`
	Remedy string        `json:"remedy,omitempty" doc:"the command or the change that helps"`
	// Errors are about single fields of the request.
	Errors []*huma.ErrorDetail `json:"errors,omitempty" doc:"what is wrong with single fields of the request"`
}
