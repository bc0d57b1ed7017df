package format

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/errdefs"
)

type inner struct {
	CPUs int
	Tags []string
}

type state string

type thing struct {
	ID     string `json:"id"`
	Bytes  int64  `json:"bytes"`
	Config inner  `json:"config"`
	Guest  *inner `json:"guest,omitempty"`
	Share  *float64
	Attrs  map[string]string
	At     time.Time
	State  state
}

type other struct{ Name string }

func command(t *testing.T, args ...string) (*Flags, error) {
	t.Helper()
	cmd := &cobra.Command{Use: "x"}
	f := Add(cmd, "as JSON", thing{}, other{})
	return f, cmd.ParseFlags(args)
}

func things() []thing {
	half := 0.5
	return []thing{
		{ID: "a", Bytes: 2048, Config: inner{2, []string{"x", "y"}}, Guest: &inner{CPUs: 3}, Share: &half, Attrs: map[string]string{"k": "v"}},
		{ID: "b\x1b[2J\nforged"},
	}
}

func TestPrint(t *testing.T) {
	tests := []struct{ name, format, want string }{
		{"fields", "{{.ID}} {{.Config.CPUs}}", "a 2\nb\\x1b[2J forged 0\n"},
		{"json", "json", ""},
		{"json of a part", "{{json .Config}}", `{"CPUs":2,"Tags":["x","y"]}` + "\n" + `{"CPUs":0,"Tags":null}` + "\n"},
		{"a guest's JSON", "{{json .ID}}", "\"a\"\n\"b\\u001b[2J\\nforged\"\n"},
		{"tabs and lines", `{{.ID}}\t{{.Bytes}}\n-`, "a\t2048\n-\nb\\x1b[2J forged\t0\n-\n"},
		{"a line that was asked for", `{{"x\ny"}}`, "x\ny\nx\ny\n"},
		{"pointers", "{{if .Guest}}{{.Guest.CPUs}}{{else}}none{{end}} {{.Share}}", "3 0.5\nnone \n"},
		{"a map", "{{.Attrs.k}}|{{.Attrs.no}}", "v|\n|\n"},
		{"functions", `{{join .Config.Tags ","}} {{upper .ID | truncate 1}}`, ""},
		{"more functions", `{{join .Config.Tags ","}} {{truncate (upper .ID) 1}} {{size .Bytes}} {{len (split .ID "a")}}`, "x,y A 2KiB 2\n B 0B 1\n"},
		{"println", "{{range .Config.Tags}}{{println .}}{{end}}{{println .ID .Bytes}}", "x\ny\na 2048\n\nb\\x1b[2J forged 0\n\n"},
		{"printf", `{{printf "%-3s|%d\n" .ID .Bytes}}`, "a  |2048\n\nb\\x1b[2J forged|0\n\n"},
		{"print and variables", `{{$x := .ID}}{{print $x "!"}}{{with .Guest}}{{.CPUs}}{{end}}`, "a!3\nb\\x1b[2J forged!\n"},
		{"a type of its own", `{{upper .State}}{{upper (print .ID)}}`, "A\nB\\X1B[2J FORGED\n"},
		{"a method", `{{.At.Year}}`, "1\n1\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := command(t, "--format", tt.format)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			err = f.Print(&b, things(), nil)
			if tt.want == "" {
				if tt.format != "json" && err == nil || tt.format == "json" && strings.Count(b.String(), "\n") != 2 {
					t.Errorf("%q, %v", b.String(), err)
				}
				return
			}
			if err != nil || b.String() != tt.want {
				t.Errorf("%q (%v), want %q", b.String(), err, tt.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	tests := []struct {
		name string
		args []string
		says string
	}{
		{"no template", []string{"--format", "{{.ID"}, "unclosed action"},
		{"empty", []string{"--format", ""}, "empty"},
		{"no such field", []string{"--format", "{{.Id}}"}, "can't evaluate field Id"},
		{"what there is", []string{"--format", "{{.Id}}"}, ".ID, .Bytes, .Config"},
		{"deeper", []string{"--format", "{{.Guest.Nope}}"}, "Nope"},
		{"in a loop", []string{"--format", "{{range .Config.Tags}}{{.Nope}}{{end}}"}, "Nope"},
		{"no such function", []string{"--format", "{{exec .ID}}"}, `"exec" not defined`},
		{"both", []string{"--json", "--format", "{{.ID}}"}, "exclude"},
		{"both, the other way round", []string{"--format", "json", "--json"}, "exclude"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := command(t, tt.args...)
			if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), shown) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
	if _, err := command(t, "--format", "{{.Name}}"); err != nil {
		t.Errorf("the other thing has it: %v", err)
	}
	f, err := command(t, "--format", "{{index .Config.Tags 1}}")
	if err != nil {
		t.Fatal(err) // a sample has one
	}
	if err := f.Print(io.Discard, things(), nil); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("an index that is not there: %v", err)
	}
}

func TestForms(t *testing.T) {
	people := func(w io.Writer) func() error {
		return func() error { _, err := io.WriteString(w, "people\n"); return err }
	}
	tests := []struct {
		name, args, print, line string
	}{
		{"people", "", "people\n", "people\n"},
		{"JSON", "--json", "{\n  \"Name\": \"n\"\n}\n", "{\"Name\":\"n\"}\n"},
		{"no JSON", "--json=false", "people\n", "people\n"},
		{"lines", "--format=json", "{\"Name\":\"n\"}\n", "{\"Name\":\"n\"}\n"},
		{"a template", "--format=<{{.Name}}>", "<n>\n", "<n>\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := command(t, strings.Fields(tt.args)...)
			if err != nil {
				t.Fatal(err)
			}
			var one, line bytes.Buffer
			err = f.Print(&one, other{"n"}, people(&one))
			if err2 := f.Line(&line, other{"n"}, people(&line)); err != nil || err2 != nil || one.String() != tt.print || line.String() != tt.line {
				t.Errorf("%q, %q, %v, %v", one.String(), line.String(), err, err2)
			}
		})
	}
	var b bytes.Buffer
	f, _ := command(t, "--json")
	if err := f.Print(&b, []thing(nil), nil); err != nil || b.String() != "[]\n" {
		t.Errorf("nothing is %q, %v", b.String(), err)
	}
}

func TestComplete(t *testing.T) {
	f, _ := command(t)
	for begun, want := range map[string]string{
		"":                     "json",
		"{{.":                  "{{.ID}}",
		"{{.ID}} ":             "{{.ID}} {{.Bytes}}",
		"{{.ID}} {{.Config.":   "{{.ID}} {{.Config.CPUs}}",
		"{{.Guest.T":           "{{.Guest.Tags}}",
		"{{.Nope.":             "",
		"{{json .":             "",
		"{{.Attrs.":            "",
		"{{.ID}} {{.Name}} {{": "",
	} {
		got, _ := f.complete(nil, nil, begun)
		if want == "" && len(got) != 0 || want != "" && !slices.Contains(got, want) {
			t.Errorf("%q gives %q, want %q", begun, got, want)
		}
	}
}

// FuzzFormat: no template makes a control character of a guest's reach the output, or a panic.
func FuzzFormat(f *testing.F) {
	f.Add(`{{.ID}}\t{{println .ID}}{{printf "%s" .ID}}`)
	f.Add(`{{range .Config.Tags}}{{.}}{{end}}{{json .}}`)
	f.Add(`{{define "x"}}{{.ID}}{{end}}{{template "x" .}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsRune(text, '\x1b') || strings.Contains(text, `x1b`) || strings.Contains(text, `\`) || len(text) > 200 || strings.Contains(text, "%") {
			t.Skip("it may print one itself")
		}
		flags := &Flags{samples: []any{things()[0]}}
		if (*formatFlag)(flags).Set(text) != nil {
			return
		}
		var b bytes.Buffer
		_ = flags.Print(&b, things(), nil)
		if strings.ContainsRune(b.String(), '\x1b') {
			t.Errorf("%q prints %q", text, b.String())
		}
	})
}
