package web

import (
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// bearer is the name of how a request shows its token.
const bearer = "token"

// Open is the security of an operation that needs no token.
func Open() []map[string][]string { return []map[string][]string{{}} }

// Finish completes the document once all operations are there: how failures look, what answers always have, and the token.
func Finish(doc *huma.OpenAPI) error {
	doc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		bearer: {Type: "http", Scheme: "bearer", Description: "What `smolvm token` shows. Over TCP only: a unix socket asks for none."},
	}
	doc.Security = []map[string][]string{{bearer: {}}, {}}
	schemas := doc.Components.Schemas
	problem := schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	var asked, answered closure
	for _, path := range doc.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Put, path.Post, path.Delete, path.Patch} {
			if op == nil {
				continue
			}
			op.Responses["default"] = &huma.Response{Description: "A failure; code tells its class", Content: map[string]*huma.MediaType{problemType: {Schema: problem}}}
			if op.RequestBody != nil {
				asked.media(schemas, op.RequestBody.Content)
			}
			for _, r := range op.Responses {
				answered.media(schemas, r.Content)
			}
		}
	}
	// In requests everything is optional and nothing else allowed. What only answers have is told as it is: fields that are
	// always there are required, and later versions may have more.
	strict := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	for _, ref := range answered.refs {
		if t := schemas.TypeFromRef(ref); t != nil && !slices.Contains(asked.refs, ref) {
			s := schemas.SchemaFromRef(ref)
			s.Required, s.AdditionalProperties = strict.Schema(t, false, "").Required, nil
		}
	}
	return explain(schemas)
}

// closure is every named schema that something refers to, directly or not.
type closure struct{ refs []string }

func (c *closure) media(in huma.Registry, content map[string]*huma.MediaType) {
	for _, m := range content {
		c.add(in, m.Schema)
	}
}

func (c *closure) add(in huma.Registry, s *huma.Schema) {
	if s == nil {
		return
	}
	if s.Ref != "" {
		if slices.Contains(c.refs, s.Ref) {
			return
		}
		c.refs = append(c.refs, s.Ref)
		c.add(in, in.SchemaFromRef(s.Ref))
		return
	}
	c.add(in, s.Items)
	if more, ok := s.AdditionalProperties.(*huma.Schema); ok {
		c.add(in, more)
	}
	for _, p := range s.Properties {
		c.add(in, p)
	}
	for _, one := range s.OneOf {
		c.add(in, one)
	}
	if content, ok := s.Extensions[contentSchema].(*huma.Schema); ok {
		c.add(in, content)
	}
}

// IsStream reports whether a request asks for an answer that lasts.
func IsStream(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), EventStream) || r.Header.Get("Upgrade") != "" || r.URL.Query().Get("follow") == "true"
}
