package web

import (
	"context"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// Answer is what an operation writes that streams.
type Answer struct {
	c     huma.Context
	begun bool
}

// Raw adds an operation that writes its answer itself. What fails before it began is a problem; afterwards the connection is
// broken off, so that nobody takes half an answer for a whole one.
func Raw[I any](to huma.API, op huma.Operation, f func(ctx context.Context, in *I, a *Answer) error) {
	patient(&op)
	huma.Register(to, op, func(_ context.Context, in *I) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(c huma.Context) {
			a := &Answer{c: c}
			err := f(c.Context(), in, a)
			switch {
			case err == nil:
			case a.begun:
				panic(http.ErrAbortHandler)
			default:
				Refuse(c, err)
			}
		}}, nil
	})
}

// HTTP is the request and what its answer is written to, for net/http's own functions. From here on the answer has begun.
func (a *Answer) HTTP() (*http.Request, http.ResponseWriter) {
	a.begun = true
	return humago.Unwrap(a.c)
}

// Stream begins an answer of bytes that go out as they come.
func (a *Answer) Stream(contentType string) io.Writer {
	a.begun = true
	_, w := humago.Unwrap(a.c)
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	f := flushed{w, http.NewResponseController(w)}
	_ = f.rc.Flush() // the header, before there is anything: a client that follows wants to know that it does
	return f
}

// Events begins an answer of events. Close them before the operation returns.
func (a *Answer) Events() *Events {
	a.begun = true
	return NewEvents(a.c)
}

type flushed struct {
	w  io.Writer
	rc *http.ResponseController
}

// Write implements io.Writer.
func (f flushed) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err == nil {
		err = f.rc.Flush()
	}
	return n, err
}

// Upload is the body of a request that is read as it comes. Embed it in an operation's input.
type Upload struct{ Content io.Reader }

// Resolve implements huma.Resolver.
func (u *Upload) Resolve(c huma.Context) []error {
	u.Content = c.BodyReader()
	return nil
}

// Uploads documents the body of such an operation.
func Uploads(contentType, what string) *huma.RequestBody {
	return &huma.RequestBody{Required: true, Description: what, Content: map[string]*huma.MediaType{
		contentType: {Schema: Bytes(what)},
	}}
}

// Bytes is the schema of what is no text.
func Bytes(what string) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "binary", Description: what}
}

// DescribeEvents documents an answer of events by what the data of each is, apart from error, which is a Problem.
func DescribeEvents(to huma.API, op *huma.Operation, events map[string]any) {
	types := map[string]reflect.Type{}
	for name, v := range events {
		types[name] = reflect.TypeOf(v)
	}
	Describe(op, http.StatusOK, map[string]*huma.Schema{EventStream: eventsSchema(to, types)})
}

// eventsSchema is the schema of each event of an answer: its name, and its data, which is JSON.
func eventsSchema(to huma.API, events map[string]reflect.Type) *huma.Schema {
	schemas := to.OpenAPI().Components.Schemas
	events = maps.Clone(events)
	events["error"] = reflect.TypeFor[Problem]()
	s := &huma.Schema{Description: "server-sent events"}
	for _, name := range slices.Sorted(maps.Keys(events)) {
		s.OneOf = append(s.OneOf, &huma.Schema{
			Type: huma.TypeObject, Required: []string{"event", "data"}, Properties: map[string]*huma.Schema{
				"event": {Type: huma.TypeString, Enum: []any{name}},
				"data":  {Type: huma.TypeString, Extensions: map[string]any{"contentMediaType": "application/json", contentSchema: schemas.Schema(events[name], true, name)}},
			},
		})
	}
	return s
}

// contentSchema is JSON Schema's word for what JSON in a text is.
const contentSchema = "contentSchema"
