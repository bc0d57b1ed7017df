package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/smolvm/smolvm/errdefs"
)

func place(name string, line int) string { return name + ":" + strconv.Itoa(line) }

// parse reads YAML, of which JSON is a part. What it does not know is refused, with the line: a default that is overlooked
// may be a limit.
func parse(b []byte) ([]entry, error) {
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return nil, errors.New(yaml.FormatError(err, false, true))
	}
	if len(file.Docs) == 0 || len(file.Docs) == 1 && (file.Docs[0].Body == nil || file.Docs[0].Body.Type() == ast.CommentType) {
		return nil, nil
	}
	if len(file.Docs) > 1 {
		return nil, errdefs.Invalid.Errorf("it is more than one document")
	}
	p := parsing{known: keys(), seen: map[string]bool{}}
	err = p.mapping(file.Docs[0].Body, "", p.top)
	slices.SortStableFunc(p.entries, func(a, b entry) int { return p.order(a) - p.order(b) })
	return p.entries, err
}

// parsing is a file on its way.
type parsing struct {
	known   []key
	seen    map[string]bool
	entries []entry
}

func (p *parsing) order(e entry) int {
	return slices.IndexFunc(p.known, func(k key) bool { return k.name == e.name })
}

func wrong(n ast.Node, format string, args ...any) error {
	line := 1
	if t := n.GetToken(); t != nil && t.Position != nil {
		line = t.Position.Line
	}
	return errdefs.Invalid.Errorf("line %d: %w", line, fmt.Errorf(format, args...))
}

// mapping calls each for the names of a mapping and what they stand for.
func (p *parsing) mapping(n ast.Node, prefix string, each func(name string, at, value ast.Node) error) error {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		return wrong(n, "names with values are meant")
	}
	for _, v := range values {
		k, ok := v.Key.(*ast.StringNode)
		if !ok {
			return wrong(v.Key, "%s is no name", v.Key)
		}
		name := prefix + k.Value
		if p.seen[name] {
			return wrong(k, "%q is there already", name)
		}
		p.seen[name] = true
		if err := each(name, k, v.Value); err != nil {
			return err
		}
	}
	return nil
}

func (p *parsing) top(name string, at, value ast.Node) error {
	if name+"." == vm {
		if value.Type() == ast.NullType {
			return nil
		}
		return p.mapping(value, vm, p.one)
	}
	return p.one(name, at, value)
}

// one takes a key's value.
func (p *parsing) one(name string, at, value ast.Node) error {
	i := slices.IndexFunc(p.known, func(k key) bool { return k.name == name })
	if i < 0 {
		return wrong(at, "there is no %q; there are %s", name, strings.Join(p.names(), ", "))
	}
	e := entry{key: p.known[i], line: at.GetToken().Position.Line}
	switch {
	case e.kind == variables:
		err := p.mapping(value, name+".", func(full string, at, value ast.Node) error {
			variable := strings.TrimPrefix(full, name+".")
			if variable == "" || strings.ContainsAny(variable, "= \t\n\x00") {
				return wrong(at, "%q is no variable name", variable)
			}
			v, err := scalar(value, text)
			e.values = append(e.values, variable+"="+v)
			return err
		})
		if err != nil {
			return err
		}
	case e.kind == list && value.Type() == ast.SequenceType:
		for _, item := range value.(*ast.SequenceNode).Values {
			v, err := scalar(item, text)
			if err != nil {
				return err
			}
			e.values = append(e.values, v)
		}
	default:
		v, err := scalar(value, e.kind)
		if err != nil {
			return err
		}
		e.values = []string{v}
	}
	if e.check != nil {
		if err := e.check(e.values[0]); err != nil {
			return wrong(value, "%s: %w", name, err)
		}
	}
	p.entries = append(p.entries, e)
	return nil
}

func (p *parsing) names() []string {
	var names []string
	for _, k := range p.known {
		names = append(names, k.name)
	}
	return names
}

// scalar is a single value as text.
func scalar(n ast.Node, k kind) (string, error) {
	switch n := n.(type) {
	case *ast.StringNode:
		if k == number || k == boolean {
			return "", wrong(n, "%q is not %s", n.Value, map[kind]string{number: "a number", boolean: "true or false"}[k])
		}
		if n.Value == "" {
			return "", wrong(n, "it is empty")
		}
		if strings.ContainsRune(n.Value, 0) {
			return "", wrong(n, "it contains a NUL byte")
		}
		return n.Value, nil
	case *ast.IntegerNode:
		// What somebody else may read as another number is none.
		plain := n.GetToken().Value
		if i, err := strconv.Atoi(plain); err != nil || strconv.Itoa(i) != plain {
			return "", wrong(n, "%s is no plain decimal number", plain)
		}
		if k == boolean || k == path || k == program {
			return "", wrong(n, "a number is not meant")
		}
		return plain, nil
	case *ast.BoolNode:
		if k != boolean && k != text {
			return "", wrong(n, "true and false are not meant")
		}
		return strconv.FormatBool(n.Value), nil
	}
	return "", wrong(n, "a plain value is meant")
}
