package egress

import (
	"os"
	"slices"
	"strings"
)

// The values of the secrets, which only the host knows.
const (
	tokenValue = "sk-the-value-of-a-token-0001"
	keyValue   = "the-value-of-a-key-for-queries-2"
)

// secretRow is one way to use a secret, or to get at it.
type secretRow struct {
	name  string
	probe []string
	want  string
	// arrives is what the server must see of it, in the one request that it gets; "" when it may see no value.
	arrives string
}

func secretRows() []secretRow {
	const token = "Authorization: Bearer $TOKEN"
	return []secretRow{
		{"secret in a header, HTTP/1.1", []string{"get", "1", okURL, token}, "allow", "auth=Bearer " + tokenValue},
		{"secret in a header, HTTP/2", []string{"get", "2", okURL, token}, "allow", "auth=Bearer " + tokenValue},
		{"secret to another host", []string{"get", "2", "https://other.web.test/ok/1", token}, "deny", ""},
		{"secret over plain HTTP", []string{"get", "1", "http://web.test/ok/1", token}, "deny", ""},
		{"secret in a body", []string{"get", "2", okURL, "METHOD=POST", "BODY=$TOKEN"}, "deny", ""},
		{"secret in a body to another host", []string{"get", "1", "https://other.web.test/ok/1", "METHOD=GET", "BODY=say $TOKEN"}, "deny", ""},
		{"secret in a query", []string{"get", "2", okURL + "?key=$TOKEN"}, "deny", ""},
		{"secret in a query, where it was asked for", []string{"get", "2", okURL + "?key=$KEY"}, "allow", "?key=" + keyValue},
		{"secret in a path", []string{"get", "2", okURL + "$KEY"}, "deny", ""},
		{"secret by a redirect to another host", []string{"get", "2", "https://web.test/ok/away", token}, "deny", "/ok/away auth=Bearer " + tokenValue},
		{"secret to a host that passes unseen", []string{"get", "2", "https://opaque.test/ok/1", token}, "allow", ""},
	}
}

// secrets tries what a guest can do with its placeholders, in a VM of their own.
func (s *suite) secrets() {
	s.Setenv("EGRESS_TOKEN", tokenValue)
	s.Setenv("EGRESS_KEY", keyValue)
	s.ok("rm", "-f", s.id)
	create := slices.Concat([]string{"create", "--name", s.id, "--secret", "TOKEN=env:EGRESS_TOKEN@web.test", "--secret", "KEY=env:EGRESS_KEY@web.test;query"}, webArgs())
	s.ok(create...)
	s.start(s.id)
	exe, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	s.ok("cp", exe, s.id+":/root/client")
	for _, r := range secretRows() {
		s.world.take()
		verdict, how := s.webProbe(r.probe...)
		reached := s.world.take()
		if strings.Contains(how, tokenValue) || strings.Contains(how, keyValue) {
			verdict, how = "leak", "the guest sees a value"
		}
		seen := false
		for _, what := range reached {
			has := strings.Contains(what, tokenValue) || strings.Contains(what, keyValue)
			if has && (r.arrives == "" || !strings.HasPrefix(what, "http web.test ")) {
				verdict, how = "leak", what
			}
			seen = seen || strings.Contains(what, r.arrives)
		}
		if r.want == "allow" && !seen {
			verdict, how = "unseen", how+": the server saw "+strings.Join(reached, ", ")
		}
		if r.want == "deny" {
			reached = nil // requests without a value may have been made: the first part of a body, a redirect
		}
		s.judge("allow, secrets", row{name: r.name, probe: r.probe, want: r.want}, verdict, how, reached)
	}
	if log := s.ok("net", "log", "--json", s.id); strings.Contains(log, tokenValue) || strings.Contains(log, keyValue) || !strings.Contains(log, `"secrets":["TOKEN"]`) {
		s.Error("the record has a value, or no name of one")
	}
}
