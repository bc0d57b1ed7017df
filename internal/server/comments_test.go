package server

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// TestComments: the document explains fields in the words of package api, whose Go names it replaces by its own.
func TestComments(t *testing.T) {
	said, names := map[string]string{}, map[string]string{}
	paths, err := filepath.Glob(filepath.Join("..", "..", "api", "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%v, %v", paths, err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if d, ok := n.(*ast.GenDecl); ok {
				for _, spec := range d.Specs {
					if s, ok := spec.(*ast.TypeSpec); ok {
						structComments(s, d.Doc.Text(), said, names)
					}
				}
			}
			return true
		})
	}
	word := regexp.MustCompile(`\b(?:[A-Z][A-Za-z]+\.)?[A-Z][A-Za-z0-9]+\b`)
	for key, text := range said {
		own, _, _ := strings.Cut(key, ".")
		said[key] = word.ReplaceAllStringFunc(text, func(w string) string {
			if of, field, qualified := strings.Cut(w, "."); qualified && names[w] != "" {
				return of + "." + names[of+"."+field]
			}
			if to := names[own+"."+w]; to != "" {
				return to
			}
			return w
		})
	}
	got, err := json.MarshalIndent(said, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	golden := filepath.Join("web", "comments.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(golden); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v; the comments of package api are others: go test ./internal/server -run 'TestComments' -update, and again with TestDocument", err)
	}
}

// structComments notes what is said of a struct and its fields, and how they are called. What is said of several stands at the
// first.
func structComments(s *ast.TypeSpec, doc string, said, names map[string]string) {
	def, ok := s.Type.(*ast.StructType)
	if !ok || !s.Name.IsExported() {
		return
	}
	if text := sentence(doc); text != "" {
		said[s.Name.Name] = text
	}
	last := ""
	for _, f := range def.Fields.List {
		if f.Tag == nil || len(f.Names) != 1 {
			continue
		}
		name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		names[s.Name.Name+"."+f.Names[0].Name] = name
		text := sentence(f.Doc.Text())
		if extra := sentence(f.Comment.Text()); extra != "" {
			text = strings.TrimSpace(text + " " + extra)
		}
		if text == "" && regexp.MustCompile(`\b`+f.Names[0].Name+`\b`).MatchString(last) {
			text = last
		} else if f.Doc.Text() != "" {
			last = text
		}
		if text != "" {
			said[s.Name.Name+"."+name] = text
		}
	}
}

func sentence(text string) string { return strings.Join(strings.Fields(text), " ") }
