// Package format prints what a command has found: as the command does for people, as JSON, or by a template. It is the one
// place for --json and --format, so that a command which has the one has the other.
//
// Layer: part of the front cli. It may import errdefs and cli/show.
package format

import (
	"io"
	"reflect"
	"strconv"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/show"
)

// jsonFormat is the format that is no template: a line of JSON per thing.
const jsonFormat = "json"

// Flags are --json and --format of one command.
type Flags struct {
	json    bool
	text    string
	tmpl    *template.Template // nil: for people, or JSON
	samples []any              // what templates are tried on
}

// Add adds the flags to cmd. What --json prints is told by usage, and what a template finds by a sample of it: a zero value
// will do. A command that prints different things gives one of each.
func Add(cmd *cobra.Command, usage string, samples ...any) *Flags {
	f := &Flags{}
	for _, s := range samples {
		f.samples = append(f.samples, filled(reflect.TypeOf(s), 0).Interface())
	}
	flag := cmd.Flags().VarPF((*jsonFlag)(f), "json", "", usage)
	flag.NoOptDefVal = "true"
	cmd.Flags().Var((*formatFlag)(f), "format", "print by this Go `TEMPLATE`, as '{{.ID}}', or json: a line per thing")
	_ = cmd.RegisterFlagCompletionFunc("format", f.complete)
	return f
}

// People reports whether nothing but the command's own form was asked for.
func (f *Flags) People() bool { return !f.json && f.text == "" }

// Print prints v as it was asked for; people prints it where nothing was, and without it that is JSON. Of a slice, a
// template gets one thing after the other.
func (f *Flags) Print(w io.Writer, v any, people func() error) error {
	if f.People() && people != nil {
		return people()
	}
	val := reflect.ValueOf(v)
	list := val.IsValid() && val.Kind() == reflect.Slice
	switch {
	case f.text == "" && list && val.IsNil():
		return show.JSON(w, []string{})
	case f.text == "":
		return show.JSON(w, v)
	case !list:
		return f.one(w, v)
	}
	for i := range val.Len() {
		if err := f.one(w, val.Index(i).Interface()); err != nil {
			return err
		}
	}
	return nil
}

// Line is Print for one of many that come one by one: JSON of it is one line.
func (f *Flags) Line(w io.Writer, v any, people func() error) error {
	switch {
	case f.People():
		return people()
	case f.json:
		return show.JSONLine(w, v)
	}
	return f.one(w, v)
}

func (f *Flags) one(w io.Writer, v any) error {
	if f.tmpl == nil {
		return show.JSONLine(w, v)
	}
	var b strings.Builder
	if err := f.tmpl.Execute(&b, v); err != nil {
		return errdefs.Invalid.Errorf("format: %s", reason(err))
	}
	_, err := io.WriteString(w, b.String()+"\n")
	return err
}

// jsonFlag is --json as a flag's value.
type jsonFlag Flags

// String implements pflag.Value.
func (f *jsonFlag) String() string { return strconv.FormatBool(f.json) }

// Type implements pflag.Value.
func (f *jsonFlag) Type() string { return "bool" }

// IsBoolFlag tells pflag that it needs no value.
func (f *jsonFlag) IsBoolFlag() bool { return true }

// Set implements pflag.Value.
func (f *jsonFlag) Set(text string) (err error) {
	if f.json, err = strconv.ParseBool(text); err == nil && f.json && f.text != "" {
		err = errBoth()
	}
	return err
}

func errBoth() error {
	return errdefs.Invalid.Errorf("--json and --format exclude each other; --format json is a line per thing")
}

// formatFlag is --format as a flag's value.
type formatFlag Flags

// String implements pflag.Value.
func (f *formatFlag) String() string { return f.text }

// Type implements pflag.Value.
func (f *formatFlag) Type() string { return "TEMPLATE" }

// Set implements pflag.Value. What is no template, or asks for what there is not, is refused here, before anything is done.
func (f *formatFlag) Set(text string) (err error) {
	switch {
	case f.json:
		return errBoth()
	case text == "":
		return errdefs.Invalid.Errorf("the template is empty")
	}
	f.text, f.tmpl = text, nil
	if text != jsonFormat {
		f.tmpl, err = compile(text, f.samples)
	}
	return err
}
