package archtest

import (
	"fmt"
	"go/ast"
	"strings"
	"testing"
)

// The house limits. More needs a reason, which stands in exceptions.
const (
	maxFunction  = 60
	maxFile      = 500
	maxPackage   = 1500
	maxInterface = 5
)

// exceptions are the places that may be larger, each with its reason and its own limit.
func exceptions() map[string]exception {
	return map[string]exception{
		"api": {2300, "the types of all fronts, a noun a file: one import for who uses them, and nothing in it does anything"},
	}
}

// exception lets one thing grow to a limit of its own. The key is a package's folder, a file, or "folder.Name".
type exception struct {
	limit int
	why   string
}

// checker compares sizes with limits and remembers which exceptions were needed.
type checker struct {
	t    *testing.T
	used map[string]bool
}

func (c *checker) check(key, what string, size, limit int) {
	c.t.Helper()
	if size <= limit {
		return
	}
	e, ok := exceptions()[key]
	if !ok {
		c.t.Errorf("%s: %s has %d, the limit is %d; make it smaller", key, what, size, limit)
		return
	}
	c.used[key] = true
	if e.why == "" || size > e.limit {
		c.t.Errorf("%s: %s has %d, its exception allows %d (%q)", key, what, size, e.limit, e.why)
	}
}

// TestLimits holds functions, files, packages and interfaces to the house limits. Tests may be long: they are lists.
func TestLimits(t *testing.T) {
	c := &checker{t, map[string]bool{}}
	packages := map[string]int{}
	for _, f := range tree(t) {
		if f.machine || f.test {
			continue
		}
		packages[f.dir] += f.lines
		c.check(f.name, "lines of the file", f.lines, maxFile)
		for _, decl := range f.syntax.Decls {
			c.decl(f, decl)
		}
	}
	for dir, lines := range packages {
		c.check(dir, "lines of the package", lines, maxPackage)
	}
	for key := range exceptions() {
		if !c.used[key] {
			t.Errorf("the exception for %s is not needed any more", key)
		}
	}
}

func (c *checker) decl(f source, decl ast.Decl) {
	c.t.Helper()
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Body == nil {
			return
		}
		lines := f.set.Position(d.End()).Line - f.set.Position(d.Pos()).Line + 1
		c.check(fmt.Sprintf("%s.%s", f.dir, d.Name.Name), "lines of the function", lines, maxFunction)
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			named, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			if face, ok := named.Type.(*ast.InterfaceType); ok {
				c.check(fmt.Sprintf("%s.%s", f.dir, named.Name.Name), "methods of the interface", face.Methods.NumFields(), maxInterface)
			}
		}
	}
}

// TestPackageDocs: every package says what it is, a program as a command, and below internal/ in which layer it lies.
func TestPackageDocs(t *testing.T) {
	docs, first := map[string]string{}, map[string]string{}
	files := tree(t)
	for _, f := range files {
		if f.test {
			continue
		}
		if f.syntax.Name.Name == "main" {
			first[f.dir] = "Command "
		}
		if f.syntax.Doc != nil {
			docs[f.dir] += f.syntax.Doc.Text()
		}
	}
	for _, dir := range folders(files) {
		want := "Package "
		if first[dir] != "" {
			want = first[dir]
		}
		if !strings.HasPrefix(docs[dir], want) {
			t.Errorf("%s: the package comment does not begin with %q: %q", dir, want, docs[dir])
		}
		if !strings.HasPrefix(dir, "cmd/") && !strings.Contains(docs[dir], "Layer: ") {
			t.Errorf("%s: the package comment does not name its layer", dir)
		}
	}
}

// TestNames: no package is a drawer.
func TestNames(t *testing.T) {
	for _, dir := range folders(tree(t)) {
		for element := range strings.SplitSeq(dir, "/") {
			switch element {
			case "utils", "util", "common", "helpers", "misc", "pkg", "base", "shared":
				t.Errorf("%s: %q says nothing; name the noun it provides", dir, element)
			}
		}
	}
}

// TestNoInitNoGet: nothing happens on import, and accessors have no Get prefix.
func TestNoInitNoGet(t *testing.T) {
	for _, f := range tree(t) {
		if f.machine {
			continue
		}
		for _, decl := range f.syntax.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := d.Name.Name
			if name == "init" && d.Recv == nil {
				t.Errorf("%s has an init function", f.name)
			}
			if len(name) > 3 && strings.HasPrefix(name, "Get") && name[3] >= 'A' && name[3] <= 'Z' && name != "GetStatus" { // huma.StatusError has that one
				t.Errorf("%s: %s has a Get prefix", f.name, name)
			}
		}
	}
}

// TestEvenClock: a host's clock may be wrong, and is set now and then. How long something takes is counted by a clock that goes
// on evenly, which a time loses when it is made a number.
func TestEvenClock(t *testing.T) {
	for _, f := range tree(t) {
		if f.test || !within(f.dir, "internal/network/...") && !within(f.dir, "internal/supervisor/uplink") {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
				switch sel.Sel.Name {
				case "UnixNano", "UnixMicro", "UnixMilli":
					t.Errorf("%s: line %d makes a time a number", f.name, f.set.Position(call.Pos()).Line)
				}
			}
			return true
		})
	}
}

// TestUnfiltered: a network that nobody filters is for comparing with, and nothing that a VM is made by knows of it.
func TestUnfiltered(t *testing.T) {
	for _, f := range tree(t) {
		if f.test || within(f.dir, "internal/engine/...") || f.dir == "internal/bench/bare" {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok && id.Name == "Unfiltered" {
				t.Errorf("%s: line %d asks for a network that is not filtered", f.name, f.set.Position(id.Pos()).Line)
			}
			return true
		})
	}
}
