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

// explain gives schemas the words of the sources, where they have none of their own.
func explain(schemas huma.Registry) error {
	var said map[string]string
	if err := json.Unmarshal(comments, &said); err != nil {
		return err
	}
	for name, s := range schemas.Map() {
		t := schemas.TypeFromRef("#/components/schemas/" + name)
		if t == nil || t.Kind() != reflect.Struct {
			continue
		}
		if s.Description == "" && ours(t) {
			s.Description = said[t.Name()]
		}
		explainFields(s, t, said)
	}
	return nil
}

// explainFields looks at what is embedded too.
func explainFields(s *huma.Schema, t reflect.Type, said map[string]string) {
	for f := range t.Fields() {
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			explainFields(s, f.Type, said)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		// What is nothing but a reference may have no words of its own in every reader; these are for those that show them.
		if p := s.Properties[name]; p != nil && p.Description == "" && ours(t) {
			p.Description = said[t.Name()+"."+name]
		}
	}
}

func ours(t reflect.Type) bool { return strings.HasSuffix(t.PkgPath(), "smolvm/api") }
