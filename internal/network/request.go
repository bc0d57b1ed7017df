package network

import (
	"slices"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// RequestVerdict is what the policy says of a request of HTTP.
type RequestVerdict struct {
	Verdict
	MaxResponse int64 // bytes of the response's body; 0: no bound
	Rate        int64 // bytes of it per second; 0: no bound
}

// request is what is asked of rules about requests.
type request struct {
	method string
	path   string // "" matches no rule that names paths
}

// requests is what a rule says about requests.
type requests struct {
	methods     []string // nil: all
	paths       []string // globs without alternatives; nil: all
	maxResponse int64
	rate        int64

	host string // the name, "*", or the zone
	wild bool   // it is for what is below host
}

func compileRequests(r api.NetworkRule) (*requests, error) {
	if !r.OfRequests() {
		return nil, nil
	}
	c := &requests{host: r.Host, methods: r.Methods, maxResponse: int64(r.MaxResponseKB) * 1000, rate: int64(r.ResponseKBps) * 1000}
	for _, text := range r.Paths {
		globs, err := api.ParseGlob(text)
		if err != nil {
			return nil, err
		}
		for _, g := range globs {
			if !doublestar.ValidatePattern(g) {
				return nil, errdefs.Invalid.Errorf("path %q is no glob", text)
			}
		}
		c.paths = append(c.paths, globs...)
	}
	return c, nil
}

func (c *requests) matches(r *request) bool {
	if c.methods != nil && !slices.Contains(c.methods, r.method) {
		return false
	}
	return c.paths == nil || r.path != "" && slices.ContainsFunc(c.paths, func(g string) bool {
		return doublestar.MatchUnvalidated(g, r.path)
	})
}

// Request says whether a request may be, in a flow whose verdict has HTTP. Its path is a Path's Clean, or "" where CleanPath
// failed. Connections and requests are decided one after the other: where the flow has an address, Flow must allow it, and of
// the rules by name, the first that matches the request decides.
func (p *Policy) Request(f Flow, method, path string) RequestVerdict {
	v := p.Flow(f)
	if !v.Allow {
		return RequestVerdict{Verdict: v}
	}
	name, err := Canonical(f.Name)
	if err != nil || name == HostName || f.Proto != TCP {
		return RequestVerdict{Verdict: deny("no request is looked into there")}
	}
	got, ok := p.request(name, f.Port, request{method, path})
	// What an encoded slash is to the server we do not know: both must be allowed, and of bounds the narrower holds.
	if slashed := asSlashes(path); ok && slashed != path {
		var also RequestVerdict
		if also, ok = p.request(name, f.Port, request{method, slashed}); ok {
			got.MaxResponse, got.Rate = narrower(got.MaxResponse, also.MaxResponse), narrower(got.Rate, also.Rate)
		} else {
			got = also
		}
	}
	if got.HTTP = ok && v.HTTP; !ok && got.Rule == Default {
		got.Reason = "no rule allows it; --allow " + permit(name, f.Port, method, path) + " would"
	}
	return got
}

func narrower(a, b int64) int64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// request decides about one reading of a path.
func (p *Policy) request(name string, port uint16, r request) (v RequestVerdict, allow bool) {
	i := p.byName(name, p.exact[name], question{TCP, port, &r})
	switch {
	case i == noRule:
		v.Rule, v.Allow = Default, p.mode == api.NetOpen // Flow looked at the name
	case !p.rules[i].allow:
		v.Verdict = p.denied(i)
	default:
		v.Rule, v.Allow = p.rules[i].text, true
		if c := p.rules[i].requests; c != nil {
			v.MaxResponse, v.Rate = c.maxResponse, c.rate
		}
	}
	return v, v.Allow
}

// maxPermit bounds the path in what would allow a request.
const maxPermit = 128

// permit is the rule that would allow a request. What comes from the guest is in it only where it is short and plain.
func permit(name string, port uint16, method, path string) string {
	r := api.NetworkRule{Action: api.RuleAllow, Host: name}
	if port != 80 && port != 443 {
		r.Ports = []string{strconv.Itoa(int(port))}
	}
	if r.Methods = []string{method}; r.Validate() != nil {
		r.Methods = nil
	}
	plain := path != "" && len(path) <= maxPermit && !strings.ContainsFunc(path, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("/-_.~@:+%", c))
	})
	if narrow := r; plain {
		narrow.Paths = []string{path}
		if slashed := asSlashes(path); slashed != path {
			narrow.Paths = append(narrow.Paths, slashed)
		}
		if narrow.Validate() == nil {
			r = narrow
		}
	}
	return strings.TrimPrefix(r.String(), string(api.RuleAllow)+" ")
}
