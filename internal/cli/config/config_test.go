package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/value"
)

var update = flag.Bool("update", false, "write docs/config.schema.json")

const schemaFile = "../../../docs/config.schema.json"

func valueSchema(k kind) *jsonschema.Schema {
	scalar := func(types ...string) *jsonschema.Schema { return &jsonschema.Schema{Types: types} }
	switch k {
	case path, program:
		return &jsonschema.Schema{Type: "string", MinLength: new(1)}
	case number:
		return &jsonschema.Schema{Type: "integer", Minimum: new(1.0)}
	case size:
		return scalar("string", "integer")
	case boolean:
		return &jsonschema.Schema{Type: "boolean"}
	case list:
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			scalar("string", "integer", "boolean"), {Type: "array", Items: scalar("string", "integer", "boolean")},
		}}
	case variables:
		return &jsonschema.Schema{
			Type: "object", AdditionalProperties: scalar("string", "integer", "boolean"),
			PropertyNames: &jsonschema.Schema{Pattern: "^[^= \\t\\n]+$"},
		}
	}
	return scalar("string", "integer", "boolean")
}

func object() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{}, AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}}}
}

func schema() *jsonschema.Schema {
	top, flags := object(), object()
	top.Schema, top.Title = "https://json-schema.org/draft/2020-12/schema", "SmolVM configuration"
	top.Description = "Defaults for flags and environment variables: ~/.config/smolvm/config.yaml, or what SMOLVM_CONFIG names."
	flags.Description = "What flags of run and create are if they are not given."
	for _, k := range keys() {
		s := valueSchema(k.kind)
		s.Description = k.doc
		in, name := top, k.name
		if rest, ok := strings.CutPrefix(name, vm); ok {
			in, name = flags, rest
		}
		in.Properties[name] = s
		in.PropertyOrder = append(in.PropertyOrder, name)
	}
	top.Properties["vm"] = flags
	top.PropertyOrder = append(top.PropertyOrder, "vm")
	return top
}

// TestSchema holds the published schema to the table.
func TestSchema(t *testing.T) {
	want, err := json.MarshalIndent(schema(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s (%v) is not what the table says; go test ./internal/cli/config -update", schemaFile, err)
	}
}

const whole = `# of this machine
home: /srv/smolvm
max_memory: 8g
max_vms: 10
dns: [192.0.2.53, "192.0.2.54"]
qemu: bin/qemu
vm:
  cpus: 2
  memory: 2g # for pip
  disk: 20480
  env: {PIP_INDEX_URL: "https://a.example/simple", N: 1, T: true}
  require_accel: true
  ttl: 2h
  user: 1000
  allow:
    - "*.example.com:443"
  policy: policy.yaml
`

// TestRead also asks the schema: it and the reader take and refuse the same, as far as a schema can tell.
func TestRead(t *testing.T) {
	tests := []struct {
		name, text string
		says       string // "" when it is fine
		schema     bool   // the schema refuses it too
	}{
		{"whole", whole, "", false},
		{"empty", "", "", false},
		{"comment", "# nothing\n", "", false},
		{"empty vm", "vm:\n", "", false},
		{"JSON", `{"vm": {"cpus": 2}}`, "", false},
		{"one name of one name", "vm: {env: {A: b}}", "", false},
		{"a list of one", "dns: 192.0.2.1", "", false},
		{"unknown", "vm:\n  cpu: 2\n", `line 2: there is no "vm.cpu"`, true},
		{"unknown at the top", "\n\ncpus: 2\n", `line 3: there is no "cpus"`, true},
		{"twice", "vm:\n  cpus: 2\n  cpus: 3\n", "3:", false},
		{"no number", "vm:\n  cpus: two\n", `line 2: "two" is not a number`, true},
		{"a number in quotes", "vm: {cpus: '2'}", "not a number", true},
		{"an octal number", "vm: {cpus: 010}", "plain decimal", false},
		{"not true or false", "vm: {require_accel: 'yes'}", "true or false", true},
		{"a list where one is meant", "vm: {image: [a, b]}", "plain value", true},
		{"a list of lists", "dns: [[a]]", "plain value", true},
		{"nothing", "vm: {image: }", "plain value", true},
		{"empty text", "home: ''", "empty", true},
		{"a size that is none", "vm:\n  cpus: 1\nmax_memory: lots\n", "line 3: max_memory", false},
		{"no VMs", "max_vms: 0", "at least 1", true},
		{"a variable that is none", "vm: {env: {'A=B': c}}", "no variable name", true},
		{"variables as a list", "vm: {env: [A=b]}", "names with values", true},
		{"a list at the top", "- home: x", "names with values", true},
		{"two documents", "home: /x\n---\nhome: /y\n", "more than one document", false},
		{"an alias", "home: &h /x\nqemu: *h\n", "plain value", false},
		{"a merge", "vm: {<<: {cpus: 2}}", "is no name", false},
		{"no YAML", "vm: [", "", true},
		{"huge", "#" + strings.Repeat("x", maxFile), "more than", false},
		{"a NUL", "home: \"a\\0b\"", "NUL", false},
	}
	resolved, err := schema().Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Read(strings.NewReader(tt.text), "/etc/x/config.yaml")
			fine := tt.says == "" && !tt.schema
			if (err == nil) != fine || err != nil && (!strings.Contains(err.Error(), tt.says) || !errdefs.Is(err, errdefs.Invalid) || errdefs.RemedyOf(err) == "") {
				t.Errorf("%+v, %v, want %q", f, err, tt.says)
			}
		})
	}
	for text, fine := range map[string]bool{
		`{"home": "/x", "max_vms": 3, "dns": ["a"], "vm": {"cpus": 2, "memory": "2g", "disk": 4096, "env": {"A": "b", "N": 1}, "allow": "a.example"}}`: true,
		`{}`: true, `{"vm": {"cpu": 2}}`: false, `{"vm": {"cpus": "2"}}`: false, `{"max_vms": 0}`: false, `{"vm": {"env": {"A=B": "c"}}}`: false,
		`{"home": ""}`: false, `{"vm": {"image": ["a"]}}`: false, `{"vm": {"require_accel": "yes"}}`: false, `{"cpus": 2}`: false,
	} {
		var instance any
		if err := json.Unmarshal([]byte(text), &instance); err != nil {
			t.Fatal(err)
		}
		if err := resolved.Validate(instance); (err == nil) != fine {
			t.Errorf("the schema says %v of %s", err, text)
		}
		if _, err := Read(strings.NewReader(text), "x"); (err == nil) != fine {
			t.Errorf("the reader says %v of %s", err, text)
		}
	}
}

func TestOrigins(t *testing.T) {
	f, err := Read(strings.NewReader(whole), "/etc/x/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"SMOLVM_MAX_VMS": "3"}
	got := map[string]Setting{}
	for _, s := range f.Settings(func(name string) string { return env[name] }) {
		got[s.Name] = s
	}
	for name, want := range map[string]Setting{
		"home":       {"home", "/srv/smolvm", "/etc/x/config.yaml:2"},
		"max_vms":    {"max_vms", "3", "$SMOLVM_MAX_VMS"},
		"dns":        {"dns", "192.0.2.53, 192.0.2.54", "/etc/x/config.yaml:5"},
		"qemu":       {"qemu", "/etc/x/bin/qemu", "/etc/x/config.yaml:6"},
		"vm.memory":  {"vm.memory", "2g", "/etc/x/config.yaml:9"},
		"vm.policy":  {"vm.policy", "/etc/x/policy.yaml", "/etc/x/config.yaml:17"},
		"vm.env":     {"vm.env", "PIP_INDEX_URL=*** N=*** T=***", "/etc/x/config.yaml:11"},
		"vm.image":   {"vm.image", "debian", "built-in"},
		"max_memory": {"max_memory", "8g", "/etc/x/config.yaml:3"},
	} {
		if got[name] != want {
			t.Errorf("%+v, want %+v", got[name], want)
		}
	}
	err = f.SetEnv(func(name string) string { return env[name] }, func(name, value string) error { env[name] = value; return nil })
	if err != nil || env["SMOLVM_MAX_VMS"] != "3" || env["SMOLVM_DNS"] != "192.0.2.53,192.0.2.54" || env["SMOLVM_HOME"] != "/srv/smolvm" || len(env) != 5 {
		t.Errorf("%v, %v", env, err)
	}
	if e := f.Env(); !maps.Equal(e, map[string]string{"PIP_INDEX_URL": "https://a.example/simple", "N": "1", "T": "true"}) {
		t.Errorf("%v", e)
	}
}

func TestSetFlags(t *testing.T) {
	const text = "vm: {cpus: 2, memory: 2g, net: allow, allow: [a.example, b.example], dns: [192.0.2.1]}"
	tests := []struct{ name, args, want string }{
		{"none given", "", "cpus=2 memory=2g net=allow allow=[a.example,b.example] dns=[192.0.2.1]"},
		{"one given", "--cpus=4", "cpus=4 memory=2g net=allow allow=[a.example,b.example] dns=[192.0.2.1]"},
		{"another network", "--net=open", "cpus=2 memory=2g net=open allow=[] dns=[192.0.2.1]"},
		{"another policy", "--policy=x", "cpus=2 memory=2g net= allow=[] dns=[192.0.2.1]"},
		{"another list", "--dns=192.0.2.9", "cpus=2 memory=2g net=allow allow=[a.example,b.example] dns=[192.0.2.9]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := &cobra.Command{Use: "run"}
			cmd.Flags().Int("cpus", 0, "")
			cmd.Flags().String("memory", "", "")
			for _, name := range []string{"net", "policy"} {
				cmd.Flags().String(name, "", "")
			}
			for _, name := range []string{"allow", "dns"} {
				cmd.Flags().StringArray(name, nil, "")
			}
			if err := cmd.ParseFlags(strings.Fields(tt.args)); err != nil {
				t.Fatal(err)
			}
			f, err := Read(strings.NewReader(text), "x")
			if err == nil {
				err = f.SetFlags(cmd)
			}
			var got []string
			for _, name := range []string{"cpus", "memory", "net", "allow", "dns"} {
				got = append(got, name+"="+cmd.Flags().Lookup(name).Value.String())
			}
			if err != nil || strings.Join(got, " ") != tt.want {
				t.Errorf("%v (%v), want %s", got, err, tt.want)
			}
		})
	}
	cmd := &cobra.Command{Use: "run"}
	cmd.Flags().Var(new(value.Size), "memory", "")
	f, err := Read(strings.NewReader("\nvm:\n  memory: lots\n"), "/x/y.yaml")
	if err == nil {
		err = f.SetFlags(cmd)
	}
	if err == nil || !strings.Contains(err.Error(), "/x/y.yaml:3: vm.memory: \"lots\" is no size") {
		t.Errorf("a value that the flag refuses: %v", err)
	}
}

func TestPath(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	tests := []struct {
		name string
		env  map[string]string
		want string
		must bool
	}{
		{"usual", map[string]string{"HOME": "/h"}, "/h/.config/smolvm/config.yaml", false},
		{"XDG", map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/c"}, "/c/smolvm/config.yaml", false},
		{"XDG that is relative", map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "c"}, "/h/.config/smolvm/config.yaml", false},
		{"named", map[string]string{"HOME": "/h", Variable: "/x/y"}, "/x/y", true},
		{"nowhere", nil, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, must, err := Path(func(name string) string { return tt.env[name] })
			if err != nil || got != tt.want || must != tt.must {
				t.Errorf("%q, %v, %v", got, must, err)
			}
		})
	}
	missing := filepath.Join(dir, "missing")
	if _, err := Load(func(name string) string { return map[string]string{Variable: missing}[name] }); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("a file that was named and is not there: %v", err)
	}
	if f, err := Load(func(name string) string { return map[string]string{"HOME": dir}[name] }); err != nil || f.Name != "" {
		t.Errorf("no file: %+v, %v", f, err)
	}
	if got := expand("~/x", "/dir"); got != filepath.Join(dir, "x") {
		t.Errorf("~/x is %s", got)
	}
}

// TestDocument: the example in the documentation is a configuration, and the page names each key.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```yaml\n")
	example, _, closed := strings.Cut(rest, "```")
	if f, err := Read(strings.NewReader(example), "x"); err != nil || !found || !closed || len(f.entries) < 5 {
		t.Errorf("%+v, %v", f, err)
	}
	for _, k := range keys() {
		if !strings.Contains(string(text), "`"+strings.TrimPrefix(k.name, vm)+"`") {
			t.Errorf("docs/config.md does not name %s", k.name)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(whole)
	f.Add("vm: &a {cpus: 1}\n<<: *a")
	f.Add("vm:\n  env:\n    ? [a]\n    : b\n")
	f.Add("home: |\n  a\n  b\n")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Read(strings.NewReader(text), "/x/config.yaml")
		if err != nil {
			return
		}
		for _, e := range file.entries {
			if e.line < 1 || e.kind != variables && e.kind != list && len(e.values) != 1 || slices.ContainsFunc(e.values, func(v string) bool { return strings.ContainsRune(v, 0) }) {
				t.Errorf("%q gives %+v", text, e)
			}
		}
	})
}
