package format

import (
	"reflect"
	"strings"

	"github.com/spf13/cobra"
)

// structOf is the struct that t is, points to, or has many of; nil where it is none.
func structOf(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	return t
}

// fields are the names that a template may ask a thing for.
func fields(t reflect.Type) []string {
	if t = structOf(t); t == nil {
		return nil
	}
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if f.IsExported() && !f.Anonymous {
			names = append(names, "."+f.Name)
		}
	}
	return names
}

// complete completes the name of a field behind the last {{, and offers one to begin with.
func (f *Flags) complete(_ *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	before, path, open := begun, "", false
	if i := strings.LastIndex(begun, "{{"); i >= 0 && !strings.Contains(begun[i:], "}}") {
		before, path, open = begun[:i], begun[i+2:], true
	}
	if !open {
		before, path = begun, "."
	}
	dot := strings.LastIndex(path, ".")
	if dot < 0 || strings.ContainsAny(path, " |(") {
		return nil, directive
	}
	var out []cobra.Completion
	if begun == "" {
		out = append(out, jsonFormat)
	}
	for _, s := range f.samples {
		t := reflect.TypeOf(s)
		for name := range strings.SplitSeq(strings.Trim(path[:dot], "."), ".") {
			if name == "" {
				continue
			}
			st := structOf(t)
			if st == nil {
				return out, directive
			}
			field, ok := st.FieldByName(name)
			if !ok {
				return out, directive
			}
			t = field.Type
		}
		for _, name := range fields(t) {
			out = append(out, before+"{{"+path[:dot]+name+"}}")
		}
	}
	return out, directive
}
