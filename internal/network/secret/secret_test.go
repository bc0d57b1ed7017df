package secret

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
)

const (
	githubPlace = "ghp_PLACEHOLDERofgithub00000000000001"
	githubValue = "ghp_realVALUEofgithub0000000000000001"
	mailPlace   = "PLACEHOLDERofmail0000001"
	mailValue   = `p@ss "word"; with = & all/+%`
)

func github() Secret {
	return Secret{Name: "GITHUB_TOKEN", Placeholder: githubPlace, Value: githubValue, Hosts: []string{"api.github.com", "*.example.com"}}
}

func mail() Secret {
	return Secret{Name: "MAIL", Placeholder: mailPlace, Value: mailValue, Hosts: []string{"mail.example.com"}, Query: true}
}

func newSet(t testing.TB, list ...Secret) *Set {
	t.Helper()
	s, err := New(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestText: no way of printing shows a value. Only JSON has it, for the gateway.
func TestText(t *testing.T) {
	one := github()
	set := newSet(t, one)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "one", one, "set", fmt.Sprint(set))
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "one", one, "list", []Secret{one})
	type holder struct{ S Secret }
	for _, text := range []string{
		fmt.Sprint(one), fmt.Sprint(&one), fmt.Sprintf("%v %+v %#v %s %q %x %d", one, one, one, one, one, one, one), one.String(),
		fmt.Sprintf("%+v %#v", []Secret{one}, map[string]Secret{"a": one}), fmt.Sprintf("%+v %#v", holder{one}, &holder{one}),
		fmt.Sprintf("%v %+v %#v %s", set, set, set, set), log.String(),
	} {
		if strings.Contains(text, githubValue) || strings.Contains(text, fmt.Sprintf("%x", githubValue)) {
			t.Errorf("it is printed: %s", text)
		}
	}
	b, err := json.Marshal(one)
	var back Secret
	if err != nil || json.Unmarshal(b, &back) != nil || !reflect.DeepEqual(one, back) {
		t.Errorf("JSON: %s, %v", b, err)
	}
}

func TestNew(t *testing.T) {
	change := func(f func(*Secret)) []Secret {
		s := github()
		f(&s)
		return []Secret{s}
	}
	twice := github()
	twice.Placeholder = strings.Repeat("x", 20)
	inside := mail()
	inside.Placeholder = githubPlace + "x"
	var many []Secret
	for i := range 65 {
		many = append(many, Secret{Name: fmt.Sprintf("S%d", i), Placeholder: Placeholder("", 0), Value: githubValue, Hosts: []string{"a.example.com"}})
	}
	tests := []struct {
		name string
		list []Secret
		want string
	}{
		{"too many", many, "65 secrets"},
		{"no name", change(func(s *Secret) { s.Name = "" }), "its name"},
		{"a name that no shell sets", change(func(s *Secret) { s.Name = "A-B" }), "its name"},
		{"no host", change(func(s *Secret) { s.Hosts = nil }), "no host"},
		{"any host", change(func(s *Secret) { s.Hosts = []string{"*"} }), "neither a name"},
		{"a top-level domain", change(func(s *Secret) { s.Hosts = []string{"*.com"} }), "top-level"},
		{"an address", change(func(s *Secret) { s.Hosts = []string{"192.0.2.7"} }), "address"},
		{"this host", change(func(s *Secret) { s.Hosts = []string{"host.smolvm.internal"} }), "this host"},
		{"upper case", change(func(s *Secret) { s.Hosts = []string{"API.github.com"} }), "lower case"},
		{"no placeholder", change(func(s *Secret) { s.Placeholder = "" }), "no placeholder"},
		{"a short placeholder", change(func(s *Secret) { s.Placeholder = "abc" }), "placeholder"},
		{"a placeholder that is encoded", change(func(s *Secret) { s.Placeholder = "a b" + githubPlace }), "placeholder"},
		{"no value", change(func(s *Secret) { s.Value = "" }), "empty"},
		{"a short value", change(func(s *Secret) { s.Value = "hunter2" }), "fewer than 8"},
		{"a long value", change(func(s *Secret) { s.Value = strings.Repeat("v", 8193) }), "more than 8192"},
		{"a line's end", change(func(s *Secret) { s.Value = "hunter2hunter2\r\nX: y" }), "control character"},
		{"a NUL", change(func(s *Secret) { s.Value = "hunter2hunter2\x00" }), "control character"},
		{"a space at the end", change(func(s *Secret) { s.Value = "hunter2hunter2 " }), "space"},
		{"twice", []Secret{github(), twice}, "two secrets"},
		{"one in the other", []Secret{github(), inside}, "told apart"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.list)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			if text := err.Error() + errdefs.RemedyOf(err); strings.Contains(text, "hunter2") || strings.Contains(text, githubValue) {
				t.Errorf("the error tells the value: %s", text)
			}
		})
	}
	if s, err := New(nil); err != nil || s.Hosts() != nil {
		t.Errorf("none: %v, %v", s.Hosts(), err)
	}
}

func TestHosts(t *testing.T) {
	s := newSet(t, github(), mail())
	if got := s.Hosts(); !slices.Equal(got, []string{"*.example.com", "api.github.com", "mail.example.com"}) {
		t.Errorf("%v", got)
	}
	for host, want := range map[string]bool{
		"api.github.com": true, "API.GitHub.com.": true, "github.com": false, "xapi.github.com": false, "api.github.com.evil.org": false,
		"a.example.com": true, "a.b.example.com": true, "example.com": false, ".example.com": false, "badexample.com": false, "": false,
	} {
		if got := s.Redacts(host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

// TestNil: a VM without secrets has a nil set.
func TestNil(t *testing.T) {
	var s *Set
	r := request(t, "https://a.example.com/?x="+githubPlace)
	if used, err := s.Request("a.example.com", true, r); used != nil || err != nil {
		t.Errorf("%v, %v", used, err)
	}
	in := strings.NewReader(githubPlace)
	if got := s.Body("a", in); got != in {
		t.Error("a body is wrapped")
	}
	if s.Redacts("a") || s.Hosts() != nil || s.Trailer("a", r.Header) != nil {
		t.Error("it does something")
	}
	s.ResponseHeader("a", r.Header)
	if got := s.ResponseBody("a", nil); got != nil {
		t.Error("a body is made")
	}
}

func TestPlaceholder(t *testing.T) {
	for _, tt := range []struct {
		prefix       string
		length, want int
	}{{"", 0, 20}, {"sk-", 8, 23}, {"sk-", 40, 40}, {"", 5000, 256}} {
		a, b := Placeholder(tt.prefix, tt.length), Placeholder(tt.prefix, tt.length)
		if len(a) != tt.want || a == b || !strings.HasPrefix(a, tt.prefix) {
			t.Errorf("%q, %d: %s, %s", tt.prefix, tt.length, a, b)
		}
	}
}

func TestMisuseIsFound(t *testing.T) {
	err := fmt.Errorf("round trip: %w", &Misuse{"A", "body", "why"})
	if m, ok := errors.AsType[*Misuse](err); !ok || m.Name != "A" || err.Error() != "round trip: the placeholder of secret A stands in the body: why" {
		t.Error(err)
	}
}
