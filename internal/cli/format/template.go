package format

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/docker/go-units"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/show"
)

// markup is text that needs no escaping any more.
type markup string

// shown is the function that every action ends with: what a guest wrote must not act on a terminal, or begin a line.
const shown = "_shown"

// functions are what templates have besides those of text/template, and in place of them.
func functions() template.FuncMap {
	return template.FuncMap{
		shown:   shownText,
		"join":  strings.Join,
		"json":  jsonText,
		"lower": func(v any) string { return strings.ToLower(plain(v)) },
		"print": func(args ...any) markup { return markup(strings.Join(shownAll(args), "")) },
		"printf": func(text string, args ...any) markup {
			for i, a := range args {
				if s, ok := a.(string); ok {
					args[i] = show.Cell(s)
				}
			}
			return markup(show.Escape(fmt.Sprintf(text, args...)))
		},
		"println": func(args ...any) markup { return markup(strings.Join(shownAll(args), " ") + "\n") },
		"size":    sizeText,
		"split":   func(v any, sep string) []string { return strings.Split(plain(v), sep) },
		"truncate": func(v any, n int) string {
			r := []rune(plain(v))
			return string(r[:max(0, min(n, len(r)))])
		},
		"upper": func(v any) string { return strings.ToUpper(plain(v)) },
	}
}

// plain is the text of what may be of a type of its own.
func plain(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return fmt.Sprint(v)
}

func shownText(v any) markup {
	if m, ok := v.(markup); ok {
		return m
	}
	val := reflect.ValueOf(v)
	for val.IsValid() && val.Kind() == reflect.Pointer {
		val = val.Elem()
	}
	if !val.IsValid() {
		return ""
	}
	return markup(show.Cell(fmt.Sprint(val.Interface())))
}

func shownAll(args []any) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = string(shownText(a))
	}
	return out
}

func jsonText(v any) (markup, error) {
	var b strings.Builder
	err := show.JSONLine(&b, v)
	return markup(strings.TrimSuffix(b.String(), "\n")), err
}

// sizeText prints bytes as tables do.
func sizeText(v any) (string, error) {
	val := reflect.ValueOf(v)
	switch {
	case val.CanInt():
		return units.BytesSize(float64(val.Int())), nil
	case val.CanUint():
		return units.BytesSize(float64(val.Uint())), nil
	}
	return "", errors.New("no number of bytes")
}

// compile makes a template and tries it on the samples.
func compile(text string, samples []any) (*template.Template, error) {
	t, err := template.New("format").Funcs(functions()).Option("missingkey=zero").Parse(text)
	if err != nil {
		return nil, errdefs.Invalid.Errorf("%s", reason(err))
	}
	for _, one := range t.Templates() {
		if one.Tree != nil {
			walk(one.Root)
		}
	}
	var missing error
	for _, s := range samples {
		err := t.Execute(io.Discard, s)
		if err == nil || !strings.Contains(err.Error(), "can't evaluate field") {
			return t, nil // what is wrong with a sample only, may be right with the thing
		}
		if missing == nil {
			missing = errdefs.Invalid.Errorf("%s; there are %s", reason(err), strings.Join(fields(reflect.TypeOf(s)), ", "))
		}
	}
	return t, missing
}

// walk makes every action end with shown, and \t and \n in between what they mean.
func walk(n parse.Node) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil {
			return
		}
		for _, child := range n.Nodes {
			walk(child)
		}
	case *parse.TextNode:
		n.Text = []byte(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(string(n.Text)))
	case *parse.ActionNode:
		finish(n.Pipe)
	case *parse.IfNode:
		walk(n.List)
		walk(n.ElseList)
	case *parse.RangeNode:
		walk(n.List)
		walk(n.ElseList)
	case *parse.WithNode:
		walk(n.List)
		walk(n.ElseList)
	}
}

// finish adds shown to what prints something that did not stand in the template itself.
func finish(p *parse.PipeNode) {
	if len(p.Decl) > 0 {
		return
	}
	last := p.Cmds[len(p.Cmds)-1]
	if _, literal := last.Args[0].(*parse.StringNode); literal && len(p.Cmds) == 1 {
		return
	}
	p.Cmds = append(p.Cmds, &parse.CommandNode{
		NodeType: parse.NodeCommand, Pos: last.Pos, Args: []parse.Node{parse.NewIdentifier(shown).SetPos(last.Pos)},
	})
}

var place = regexp.MustCompile(`^template: ?(format)?(:\d+)*:? ?(executing "format" )?(at )?`)

// reason is what text/template has to say, without what only programmers want to know.
func reason(err error) string {
	return strings.Replace(place.ReplaceAllString(err.Error(), ""), " |"+shown, "", 1)
}

// maxDepth is how deep samples go.
const maxDepth = 6

// filled returns a value with something in each pointer and list.
func filled(t reflect.Type, depth int) reflect.Value {
	v := reflect.New(t).Elem()
	if depth > maxDepth || t == reflect.TypeFor[time.Time]() {
		return v
	}
	switch t.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		v.Elem().Set(filled(t.Elem(), depth+1))
	case reflect.Slice:
		v.Set(reflect.Append(v, filled(t.Elem(), depth+1)))
	case reflect.Struct:
		for i := range t.NumField() {
			if t.Field(i).IsExported() {
				v.Field(i).Set(filled(t.Field(i).Type, depth+1))
			}
		}
	}
	return v
}
