package network

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

var update = flag.Bool("update", false, "write docs/policy.schema.json")

const schemaFile = "../../../docs/policy.schema.json"

// comments are those of a package's types and fields, as "Type" and "Type.Field".
func comments(t *testing.T, dir string) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			st, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range st.Fields.List {
				for _, id := range field.Names {
					text := strings.Join(strings.Fields(field.Doc.Text()+" "+field.Comment.Text()), " ")
					out[spec.Name.Name+"."+id.Name] = text
				}
			}
			return true
		})
	}
	return out
}

// schemaOf makes a schema of a struct: what the decoder takes, and no more.
func schemaOf(t *testing.T, typ reflect.Type, docs map[string]string) *jsonschema.Schema {
	t.Helper()
	s := &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{}, AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}}}
	for f := range typ.Fields() {
		name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if yaml, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); yaml != name {
			t.Errorf("%s.%s is %q in JSON and %q in YAML", typ.Name(), f.Name, name, yaml)
		}
		p := property(t, f.Type, docs)
		p.Description = docs[typ.Name()+"."+f.Name]
		s.Properties[name] = p
		s.PropertyOrder = append(s.PropertyOrder, name)
		if rest != "omitempty" {
			s.Required = append(s.Required, name)
		}
	}
	return s
}

func property(t *testing.T, typ reflect.Type, docs map[string]string) *jsonschema.Schema {
	t.Helper()
	zero := 0.0
	switch {
	case typ == reflect.TypeFor[api.NetworkMode]():
		return &jsonschema.Schema{Type: "string", Enum: []any{api.NetOpen, api.NetNone, api.NetAllow}}
	case typ == reflect.TypeFor[api.RuleAction]():
		return &jsonschema.Schema{Type: "string", Enum: []any{api.RuleAllow, api.RuleDeny}}
	case typ.Kind() == reflect.String:
		return &jsonschema.Schema{Type: "string"}
	case typ.Kind() == reflect.Bool:
		return &jsonschema.Schema{Type: "boolean"}
	case typ.Kind() == reflect.Int:
		return &jsonschema.Schema{Type: "integer", Minimum: &zero}
	case typ.Kind() == reflect.Slice:
		return &jsonschema.Schema{Type: "array", Items: property(t, typ.Elem(), docs)}
	case typ.Kind() == reflect.Struct:
		return schemaOf(t, typ, docs)
	}
	t.Fatalf("no schema for %s", typ)
	return nil
}

func policySchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	s := schemaOf(t, reflect.TypeFor[api.NetworkPolicy](), comments(t, "../../../api"))
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.Title = "SmolVM network policy"
	s.Description = "What a VM may reach: smolvm run --policy FILE, smolvm net set ID --policy FILE."
	s.Required = []string{"mode"} // of a file: its rules' sense depends on it
	limit := func(name string, most int) { s.Properties[name].Maximum = new(float64(most)) }
	limit("rate_kbps", api.MaxRateKBps)
	limit("max_conns", api.MaxConnsLimit)
	limit("max_new_per_sec", api.MaxPerSecLimit)
	limit("max_dns_per_sec", api.MaxPerSecLimit)
	s.Properties["rules"].MaxItems = new(api.MaxNetworkRules)
	s.Properties["dns"].MaxItems = new(api.MaxResolvers)
	rule := s.Properties["rules"].Items
	rule.Properties["proto"].Enum = []any{"tcp", "udp"}
	port := rule.Properties["ports"].Items
	port.Type, port.Types = "", []string{"string", "integer"} // YAML's 443 is a number
	port.Pattern, port.Minimum, port.Maximum = "^[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?$", new(1.0), new(65535.0)
	rule.Properties["methods"].Items.Pattern = "^[A-Z0-9_-]{1,32}$"
	rule.Properties["paths"].Items.Pattern = "^/"
	rule.Properties["max_response_kb"].Maximum = new(float64(api.MaxResponseKB))
	rule.Properties["response_kbps"].Maximum = new(float64(api.MaxRateKBps))
	rule.OneOf = []*jsonschema.Schema{{Required: []string{"host"}}, {Required: []string{"cidr"}}}
	return s
}

// TestSchema holds the published schema to the Go types.
func TestSchema(t *testing.T) {
	want, err := json.MarshalIndent(policySchema(t), "", "  ")
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
		t.Errorf("%s (%v) is not what the types say; go test ./internal/cli/network -update", schemaFile, err)
	}
}

const whole = `# what a build needs
mode: allow
rules:
  - action: deny
    host: secret.example.com
  - action: allow
    host: "*.example.com"
    ports: ["443", "8000-8100"]
  - {action: allow, cidr: 10.0.0.5, ports: ["53"], proto: udp}
  - action: allow
    host: api.example.com
    methods: [GET, HEAD]
    paths: [/repos/**, "/{a,b}/*"]
    max_response_kb: 1000
    response_kbps: 100
  - {action: allow, host: pinned.example.com, opaque: true}
dns: [192.0.2.53]
rate_kbps: 1000
max_conns: 64
max_new_per_sec: 10
max_dns_per_sec: 20
`

// TestParse also asks the schema: it and the decoder take and refuse the same, as far as a schema can tell.
func TestParse(t *testing.T) {
	tests := []struct {
		name, text string
		says       string // "" when it is fine
		schema     bool   // the schema refuses it too
	}{
		{"whole", whole, "", false},
		{"least", "mode: open", "", false},
		{"ports as numbers", "mode: allow\nrules: [{action: allow, host: a.example, ports: [443, 8000-8100]}]", "", false},
		{"a port as an octal number", "mode: allow\nrules: [{action: allow, host: a.example, ports: [0443]}]", "plain", true},
		{"a port as a hexadecimal number", "mode: allow\nrules: [{action: allow, host: a.example, ports: [0x50]}]", "plain", true},
		{"JSON", `{"mode": "allow", "rules": [{"action": "allow", "host": "a.example", "ports": ["443"]}]}`, "", false},
		{"empty", "", "one document", true},
		{"comment only", "# nothing\n", "one document", true},
		{"two documents", "mode: open\n---\nmode: none\n", "one document", true},
		{"a list", "- mode: open", "", true},
		{"no mode", "dns: [192.0.2.53]", "no mode", true},
		{"unknown field", "mode: allow\nrule: []", "unknown field", true},
		{"unknown field of a rule", "mode: allow\nrules: [{action: allow, host: a.example, port: 443}]", "unknown field", true},
		{"a field twice", "mode: allow\nmode: open", "already defined", true},
		{"a mode that is none", "mode: closed", "closed", true},
		{"no action", "mode: allow\nrules: [{host: a.example}]", "action", true},
		{"host and cidr", "mode: allow\nrules: [{action: allow, host: a.example, cidr: 10.0.0.0/8}]", "either", true},
		{"neither", "mode: allow\nrules: [{action: allow}]", "either", true},
		{"a port that is none", "mode: allow\nrules: [{action: allow, host: a.example, ports: ['http']}]", "http", true},
		{"a port that is too high", "mode: allow\nrules: [{action: allow, host: a.example, ports: ['70000']}]", "70000", false},
		{"rules for none", "mode: none\nrules: [{action: allow, host: a.example}]", "takes no rules", false},
		{"a negative limit", "mode: open\nmax_conns: -1", "max_conns", true},
		{"a method in lower case", "mode: allow\nrules: [{action: allow, host: a.example, methods: [get]}]", "get", true},
		{"a glob that is none", "mode: allow\nrules: [{action: allow, host: a.example, paths: ['/{a']}]", "rule 1: path \"/{a\"", false},
		{"a path without a slash", "mode: allow\nrules: [{action: allow, host: a.example, paths: [a]}]", "slash", true},
		{"a denial of methods", "mode: allow\nrules: [{action: deny, host: a.example, methods: [GET]}]", "only an allow rule", false},
		{"opaque in words", "mode: allow\nrules: [{action: allow, host: a.example, opaque: sure}]", "", true},
		{"aliases", "mode: allow\ndns: &d [192.0.2.53]\nrules: *d", "aliases", true},
		{"merge", "a: &a {mode: open}\n<<: *a", "aliases", true},
		{"no YAML", "mode: [", "", true},
		{"huge", "mode: open\n#" + strings.Repeat("x", maxFile), "more than", false},
	}
	resolved, err := policySchema(t).Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Parse(strings.NewReader(tt.text))
			fine := tt.says == "" && !tt.schema
			if (err == nil) != fine || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%+v, %v, want %q", p, err, tt.says)
			}
			if err != nil {
				return
			}
			b, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			var instance any
			if err := json.Unmarshal(b, &instance); err != nil {
				t.Fatal(err)
			}
			if err := resolved.Validate(instance); err != nil {
				t.Errorf("the schema refuses it: %v", err)
			}
			text, err := Format(p)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := Parse(bytes.NewReader(text)); err != nil || !reflect.DeepEqual(again, p) {
				t.Errorf("formatted as\n%s\nit is %+v (%v), was %+v", text, again, err, p)
			}
		})
	}
	for _, text := range []string{
		`{}`, `{"mode": "closed"}`, `{"mode": "open", "rule": []}`, `{"mode": "allow", "rules": [{"action": "allow"}]}`, `{"mode": "open", "max_conns": -1}`,
		`{"mode": "allow", "rules": [{"action": "allow", "host": "a", "cidr": "10.0.0.0/8"}]}`, `{"mode": "allow", "rules": [{"host": "a"}]}`,
		`{"mode": "allow", "rules": [{"action": "allow", "host": "a", "ports": [70000]}]}`, `{"mode": "allow", "rules": [{"action": "allow", "host": "a", "proto": "icmp"}]}`,
	} {
		var instance any
		if err := json.Unmarshal([]byte(text), &instance); err != nil {
			t.Fatal(err)
		}
		if err := resolved.Validate(instance); err == nil {
			t.Errorf("the schema takes %s", text)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(whole)
	f.Add("mode: &a open\n<<: *a")
	f.Add(`{"mode": "allow", "rules": [{"action": "allow", "cidr": "::/0"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(strings.NewReader(text))
		if err == nil && (p.Mode == "" || p.Validate() != nil) {
			t.Errorf("%q gives %+v", text, p)
		}
	})
}

func TestFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte("mode: allow\nrules: [{action: allow, host: a.example}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	limited := file + "-limited"
	if err := os.WriteFile(limited, []byte("mode: none\nmax_conns: 8\nmax_dns_per_sec: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, args string
		want       string // the policy as JSON; "" is an error
	}{
		{"nothing", "", `{"mode":"open"}`},
		{"none", "--net none", `{"mode":"none"}`},
		{"allow means only that", "--allow a.example:443", `{"mode":"allow","rules":[{"action":"allow","host":"a.example","ports":["443"]}]}`},
		{"in their order", "--deny x.a.example --allow *.a.example --deny 1.1.1.1", `{"mode":"allow","rules":[{"action":"deny","host":"x.a.example"},{"action":"allow","host":"*.a.example"},{"action":"deny","cidr":"1.1.1.1"}]}`},
		{"open and more", "--net open --allow 10.0.0.5:53/udp", `{"mode":"open","rules":[{"action":"allow","cidr":"10.0.0.5","ports":["53"],"proto":"udp"}]}`},
		{"deny means all but that", "--deny 1.1.1.1", `{"mode":"open","rules":[{"action":"deny","cidr":"1.1.1.1"}]}`},
		{"nothing at all", "--net allow", `{"mode":"allow"}`},
		{"requests", "--allow a.example=GET,HEAD:/x/**,/{y,z} --allow b.example:8443=*:/v1/*", `{"mode":"allow","rules":[{"action":"allow","host":"a.example","methods":["GET","HEAD"],"paths":["/x/**","/{y,z}"]},{"action":"allow","host":"b.example","ports":["8443"],"paths":["/v1/*"]}]}`},
		{"opaque", "--allow a.example:443=opaque", `{"mode":"allow","rules":[{"action":"allow","host":"a.example","ports":["443"],"opaque":true}]}`},
		{"a denial of requests", "--deny a.example=GET", ""},
		{"a glob that is none", "--allow a.example=GET:/[!a]", ""},
		{"rate", "--net-rate 10m", `{"mode":"open","rate_kbps":10000}`},
		{"resolvers", "--dns 192.0.2.1 --dns 192.0.2.2:5353", `{"mode":"open","dns":["192.0.2.1","192.0.2.2:5353"]}`},
		{"a file", "--policy " + file + " --net-rate 1m", `{"mode":"allow","rules":[{"action":"allow","host":"a.example"}],"rate_kbps":1000}`},
		{"limits", "--net-max-conns 64 --net-max-new 10 --net-max-dns 5", `{"mode":"open","max_conns":64,"max_new_per_sec":10,"max_dns_per_sec":5}`},
		{"a file with a limit, and another", "--policy " + limited + " --net-max-conns 9", `{"mode":"none","max_conns":9,"max_dns_per_sec":7}`},
		{"no connections", "--net-max-conns 0", ""},
		{"too many connections", "--net-max-conns 65537", ""},
		{"a negative number", "--net-max-new=-1", ""},
		{"half a question", "--net-max-dns 0.5", ""},
		{"a file and rules", "--policy " + file + " --allow b.example", ""},
		{"a file and a mode", "--policy " + file + " --net open", ""},
		{"no file", "--policy " + file + "x", ""},
		{"rules for nothing", "--net none --allow a.example", ""},
		{"a mode that is none", "--net closed", ""},
		{"an empty mode", "--net= --allow a.example", ""},
		{"a rule that is none", "--allow http://a.example", ""},
		{"a rate that is none", "--net-rate 10", ""},
		{"a resolver that is none", "--dns a.example", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var f Flags
			cmd := &cobra.Command{Use: "x"}
			f.Add(cmd)
			err := cmd.ParseFlags(strings.Fields(tt.args))
			var p api.NetworkPolicy
			if err == nil {
				p, err = f.Policy(cmd)
			}
			if tt.want == "" {
				if err == nil {
					t.Errorf("it gives %+v", p)
				}
				return
			}
			got, _ := json.Marshal(p)
			if err != nil || string(got) != tt.want {
				t.Errorf("%s (%v), want %s", got, err, tt.want)
			}
			if f.Given(cmd) != (tt.args != "") {
				t.Errorf("given: %v", f.Given(cmd))
			}
		})
	}
	if _, err := readFile(file + "x"); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestDocument: the example in the documentation is a policy.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../../docs/network.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```yaml\n")
	example, _, closed := strings.Cut(rest, "```")
	if p, err := Parse(strings.NewReader(example)); err != nil || !found || !closed || len(p.Rules) != 5 || p.MaxDNSPerSec == 0 {
		t.Errorf("%+v, %v", p, err)
	}
}
