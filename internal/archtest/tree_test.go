package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/smolvm/smolvm"

// source is one Go file of the repository.
type source struct {
	name    string // relative to the root, with slashes
	dir     string // its package's folder; "" is the root
	lines   int
	test    bool
	machine bool // generated
	syntax  *ast.File
	set     *token.FileSet
}

// imports returns the paths of what the file imports.
func (s source) imports() []string {
	var out []string
	for _, spec := range s.syntax.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// ours returns the folders of our packages that the file imports.
func (s source) ours() []string {
	var out []string
	for _, p := range s.imports() {
		if p == module {
			out = append(out, "")
		} else if rest, ok := strings.CutPrefix(p, module+"/"); ok {
			out = append(out, rest)
		}
	}
	return out
}

// root finds the repository's root.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("no go.mod above this test")
		}
		dir = filepath.Dir(dir)
	}
}

// tree parses every Go file of the repository, whatever its build constraints.
func tree(t *testing.T) []source {
	t.Helper()
	top := root(t)
	var out []source
	err := filepath.WalkDir(top, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if base := entry.Name(); name != top && (strings.HasPrefix(base, ".") || base == "testdata" || base == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(top, name)
		if err != nil {
			return err
		}
		one, err := parse(name, filepath.ToSlash(rel))
		out = append(out, one)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("only %d Go files found below %s", len(out), top)
	}
	return out
}

func parse(name, rel string) (source, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return source{}, err
	}
	set := token.NewFileSet()
	syntax, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return source{}, err
	}
	dir := path.Dir(rel)
	if dir == "." {
		dir = ""
	}
	return source{
		name: rel, dir: dir, lines: strings.Count(string(text), "\n"), test: strings.HasSuffix(rel, "_test.go"),
		machine: ast.IsGenerated(syntax), syntax: syntax, set: set,
	}, nil
}

// folders returns the folders that hold code other than tests.
func folders(files []source) []string {
	var out []string
	for _, f := range files {
		if !f.test && !slices.Contains(out, f.dir) {
			out = append(out, f.dir)
		}
	}
	return out
}

// within reports whether folder is pattern, or below it where pattern ends in "/...".
func within(folder, pattern string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return folder == base || strings.HasPrefix(folder, base+"/")
	}
	return folder == pattern
}
