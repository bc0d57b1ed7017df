package web

import (
	_ "embed"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// comments is what the sources of package api say of its types ("Config") and their fields ("Config.disk_mib"). It is made of
// them by `go test ./internal/server -run TestComments -update`, so that it is said once.
//
//go:embed comments.json
var comments []byte

// explain gives schemas the words of the sources, where they have none of their own, and the bounds of numbers.
func explain(schemas huma.Registry) error {
	e := explainer{bounds: bounds()}
	if err := json.Unmarshal(comments, &e.said); err != nil {
		return err
	}
	for name, s := range schemas.Map() {
		t := schemas.TypeFromRef("#/components/schemas/" + name)
		if t == nil || t.Kind() != reflect.Struct {
			continue
		}
		if s.Description == "" && ours(t) {
			s.Description = e.said[t.Name()]
		}
		e.fields(s, t)
		s.PrecomputeMessages()
	}
	return nil
}

type explainer struct {
	said   map[string]string
	bounds map[string]bound
}

// fields looks at what is embedded too.
func (e explainer) fields(s *huma.Schema, t reflect.Type) {
	for f := range t.Fields() {
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			e.fields(s, f.Type)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		p := s.Properties[name]
		if p == nil || !ours(t) {
			continue
		}
		if p.Description == "" {
			p.Description = e.said[t.Name()+"."+name]
		}
		if b, ok := e.bounds[t.Name()+"."+name]; ok {
			p.Minimum = &b.least
			if b.most != 0 {
				p.Maximum = &b.most
			}
		}
	}
}

func ours(t reflect.Type) bool { return strings.HasSuffix(t.PkgPath(), "smolvm/api") }
