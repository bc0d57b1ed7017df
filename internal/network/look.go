package network

import (
	"strings"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// The ports whose connections to names in allow rules are looked into: plain HTTP, and HTTPS.
const (
	portHTTP  = 80
	portHTTPS = 443
)

// look says of a TCP flow by name that is allowed whether it is looked into. That depends on the name alone, so that it is known
// before anything is dialled. byName is the first rule for the name.
func (p *Policy) look(name string, byName int32, port uint16) (http, opaque bool) {
	if byName != noRule && p.rules[byName].allow {
		r := &p.rules[byName]
		opaque = r.opaque
		http = !opaque && (port == portHTTPS || port == portHTTP || r.requests != nil)
	}
	return http || port == portHTTPS && !opaque && p.secrets.has(name), opaque
}

// unseen says why no datagram may go to a port whose connections are looked into: HTTP/3 would be a way past that. Rules that
// allow it by name open it, unless something depends on seeing the requests.
func (p *Policy) unseen(name string, exact []int32, byName int32, port uint16) string {
	q := question{proto: TCP, port: port}
	http, opaque := p.look(name, p.byName(name, exact, q), port)
	switch {
	case port == portHTTPS && p.secrets.has(name), p.asked(name, q):
		return "requests to this name are looked into, over TCP only"
	case (http || opaque) && (byName == noRule || !p.rules[byName].allow):
		return "connections to this name are looked into, over TCP only"
	}
	return ""
}

// asked reports whether any rule says something about requests to the name on this port.
func (p *Policy) asked(name string, q question) bool {
	for _, i := range p.asking {
		c := p.rules[i].requests
		matches := name == c.host || c.host == "*"
		if c.wild {
			matches = name != c.host && below(name, c.host)
		}
		if matches && p.rules[i].answers(q) {
			return true
		}
	}
	return false
}

// Synthetic reports whether a name's address must be one of the gateway's own: so that a connection comes with its name where
// that decides.
func (p *Policy) Synthetic(name string) bool {
	if p.mode != api.NetOpen {
		return true
	}
	name, err := Canonical(name)
	if err != nil {
		return false
	}
	return name == HostName || p.secrets.has(name) || p.Flow(Flow{Name: name, Port: portHTTPS}).HTTP || p.Flow(Flow{Name: name, Port: portHTTP}).HTTP
}

// secretHosts are the names to which secrets may go.
type secretHosts struct {
	exact map[string]struct{}
	zones []string // of "*.zone"
}

func (s *secretHosts) has(name string) bool {
	if len(s.exact) == 0 && len(s.zones) == 0 {
		return false
	}
	if _, there := s.exact[name]; there {
		return true
	}
	for _, z := range s.zones {
		if len(name) > len(z) && below(name, z) {
			return true
		}
	}
	return false
}

// addSecrets refuses hosts at which a secret could never be put into a request.
func (p *Policy) addSecrets(hosts []string) error {
	p.secrets.exact = map[string]struct{}{}
	for _, host := range hosts {
		zone, wild := strings.CutPrefix(host, "*.")
		name, err := Canonical(zone)
		if err != nil || below(name, reservedZone) || below(name, "localhost") {
			return errdefs.Invalid.Errorf("network: a secret's host: %q is no host name that one can go to", host)
		}
		if wild {
			p.secrets.zones = append(p.secrets.zones, name)
		} else {
			p.secrets.exact[name] = struct{}{}
		}
		if p.mode != api.NetAllow {
			continue
		}
		if err := p.reachable(host, name, wild); err != nil {
			return err
		}
	}
	return nil
}

// reachable refuses a secret's host to which no HTTPS is allowed, or none that is looked into.
func (p *Policy) reachable(host, name string, wild bool) error {
	q := question{proto: TCP, port: portHTTPS}
	ask := name
	if wild {
		ask = "_." + name // stands for whatever has no rule of its own
	}
	i := p.byName(ask, p.exact[ask], q)
	if i != noRule && p.rules[i].opaque {
		return errdefs.Invalid.Errorf("network: a secret goes to %s, whose connections rule %d, %s, keeps closed: it could not be put into requests", host, i+1, p.rules[i].text).
			WithRemedy("--allow %s:443", host)
	}
	if i != noRule && p.rules[i].allow {
		return nil
	}
	if wild && p.reachableBelow(name, q) {
		return nil
	}
	return errdefs.Invalid.Errorf("network: a secret goes to %s, which no rule allows on port 443", host).WithRemedy("--allow %s:443", host)
}

// reachableBelow reports whether a rule allows a name below a zone.
func (p *Policy) reachableBelow(zone string, q question) bool {
	for _, rules := range []map[string][]int32{p.exact, p.suffix} {
		for name, ids := range rules {
			if name == zone || !below(name, zone) {
				continue
			}
			if i := p.first(ids, q, noRule, false); i != noRule && p.rules[i].allow && !p.rules[i].opaque {
				return true
			}
		}
	}
	return false
}
