// Package secret puts values into requests that leave a VM, in place of the placeholders that its guest holds, and takes them
// out of the responses again. It is pure: the gateway shows it each request, with the host that the policy knows it to go to.
//
// Layer: part of network, below network/control and network/gateway. It may import api, errdefs.
package secret

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// Secret is one, with its value. As text it is three stars; only JSON has the value, for the gateway's control lines.
type Secret struct {
	Name        string   `json:"name"`
	Placeholder string   `json:"placeholder"`
	Value       string   `json:"value"`
	Hosts       []string `json:"hosts"`           // names in lower case, and "*.example.com" for all names below one
	Query       bool     `json:"query,omitempty"` // it may stand in a URL's query too
}

const stars = "***"

// String keeps the value to itself.
func (s Secret) String() string { return stars }

// Format keeps the value to itself, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, stars) }

// LogValue keeps the value to itself.
func (s Secret) LogValue() slog.Value { return slog.StringValue(stars) }

// allows says whether a secret is for a host.
func (s Secret) allows(host string) bool {
	return slices.ContainsFunc(s.Hosts, func(h string) bool { return matches(h, host) })
}

// matches says whether a secret's host stands for a name. A suffix stands for what is below it only, as in rules.
func matches(pattern, host string) bool {
	if zone, ok := strings.CutPrefix(pattern, "*"); ok {
		return len(host) > len(zone) && strings.HasSuffix(host, zone)
	}
	return pattern == host
}

func canonical(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// Set is the secrets of one VM. A nil one has none, and still works. It never changes, so that any number of goroutines may
// use it.
type Set struct {
	list   []Secret
	folded []string // their placeholders in lower case
	// The lengths of the shortest and the longest placeholder.
	shortest, longest int
}

// New makes a set. Its errors name secrets and never their values.
func New(list []Secret) (*Set, error) {
	if len(list) > api.MaxSecrets {
		return nil, errdefs.Invalid.Errorf("%d secrets are more than %d", len(list), api.MaxSecrets)
	}
	s := &Set{}
	for _, one := range list {
		about := api.Secret{Name: one.Name, Hosts: one.Hosts, Query: one.Query, Placeholder: one.Placeholder}
		if err := about.Validate(); err != nil {
			return nil, err
		}
		if one.Placeholder == "" {
			return nil, errdefs.Internal.Errorf("secret %s: it has no placeholder", one.Name)
		}
		if err := api.SecretValue(one.Value).Validate(one.Name); err != nil {
			return nil, err
		}
		for _, other := range s.list {
			switch {
			case one.Name == other.Name:
				return nil, errdefs.Invalid.Errorf("there are two secrets %s", one.Name)
			case strings.Contains(one.Placeholder, other.Placeholder), strings.Contains(other.Placeholder, one.Placeholder):
				return nil, errdefs.Internal.Errorf("secrets %s and %s: their placeholders cannot be told apart", one.Name, other.Name)
			}
		}
		one.Hosts = slices.Clone(one.Hosts)
		s.list = append(s.list, one)
		s.folded = append(s.folded, strings.ToLower(one.Placeholder))
		if s.longest = max(s.longest, len(one.Placeholder)); s.shortest == 0 || len(one.Placeholder) < s.shortest {
			s.shortest = len(one.Placeholder)
		}
	}
	return s, nil
}

// Format keeps the values to themselves.
func (s *Set) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, stars) }

// Hosts are all names that one of the secrets is for, sorted.
func (s *Set) Hosts() []string {
	if s == nil {
		return nil
	}
	var all []string
	for _, one := range s.list {
		all = append(all, one.Hosts...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Redacts says whether responses of a host may hold a value, so that they are to be asked for unencoded and to be shown to
// ResponseHeader and ResponseBody.
func (s *Set) Redacts(host string) bool { return len(s.of(host)) > 0 }

// of is the secrets that are for a host.
func (s *Set) of(host string) []Secret {
	if s == nil {
		return nil
	}
	host = canonical(host)
	var some []Secret
	for _, one := range s.list {
		if one.allows(host) {
			some = append(some, one)
		}
	}
	return some
}

// Misuse is a placeholder where none may be: nothing of the request may leave.
type Misuse struct {
	Name  string // the secret's
	Where string // in the request, for people: "header Authorization"
	Why   string // why not there
}

func (m *Misuse) Error() string {
	return fmt.Sprintf("the placeholder of secret %s stands in the %s: %s", m.Name, m.Where, m.Why)
}
