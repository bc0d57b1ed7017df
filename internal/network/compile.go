package network

import (
	"net/netip"
	"strings"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// Compile checks a policy and makes it fast to ask. What could not be enforced as it is written is refused.
func Compile(p api.NetworkPolicy, o Options) (*Policy, error) {
	p = p.WithDefaults()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	out := &Policy{mode: p.Mode, exact: map[string][]int32{}, suffix: map[string][]int32{}, wild: noRule}
	for _, text := range p.DNS {
		at, err := api.ParseResolver(text)
		if err != nil {
			return nil, err
		}
		out.resolvers = append(out.resolvers, at)
	}
	closed := closedPrefixes(o.HostAddrs)
	nodes := map[netip.Prefix]*node{}
	for _, c := range closed {
		if n, there := nodes[c.prefix]; there && n.entry.never {
			continue
		}
		nodes[c.prefix] = &node{prefix: c.prefix, entry: &c.closedRange, reason: c.text + " is closed: " + c.why}
	}
	if err := enforceable(p); err != nil {
		return nil, err
	}
	for i, r := range p.Rules {
		if err := out.add(int32(i), r, nodes, closed); err != nil {
			return nil, errdefs.Invalid.Errorf("network: rule %d, %s: %w", i+1, r, err)
		}
	}
	out.addrs = makeRanges(nodes)
	if err := out.addSecrets(o.SecretHosts); err != nil {
		return nil, err
	}
	return out, nil
}

// enforceable refuses denials of names, and rules about requests, where the guest may go to their addresses without us ever hearing the name.
func enforceable(p api.NetworkPolicy) error {
	open := "in mode open"
	if p.Mode == api.NetAllow {
		open = ""
	}
	for _, r := range p.Rules {
		if prefix, err := api.ParseCIDR(r.CIDR); err == nil && prefix.Bits() < 8 && r.Action == api.RuleAllow {
			open = "beside " + r.String()
		}
	}
	for i, r := range p.Rules {
		if open != "" && r.OfRequests() {
			return errdefs.Invalid.Errorf("network: rule %d, %s: %s it cannot be enforced: the guest could go to the address without the name", i+1, r, open).
				WithRemedy("allow only the names that are needed (mode allow)")
		}
		if p.Mode == api.NetOpen && r.Opaque {
			return errdefs.Invalid.Errorf("network: rule %d, %s: in mode open it means nothing: no connection is looked into there", i+1, r).
				WithRemedy("leave out opaque, or allow only the names that are needed (mode allow)")
		}
		if open != "" && r.Action == api.RuleDeny && r.Host != "" && r.Host != "*" && r.Host != HostName {
			return errdefs.Invalid.Errorf("network: rule %d, %s: %s it cannot be enforced: the guest could go to the address without the name", i+1, r, open).
				WithRemedy("deny the addresses, or allow only the names that are needed (mode allow)")
		}
	}
	return nil
}

func (p *Policy) add(i int32, r api.NetworkRule, nodes map[netip.Prefix]*node, closed []closedPrefix) error {
	c, err := compileRule(r)
	if err != nil {
		return err
	}
	p.rules = append(p.rules, c)
	if c.requests != nil {
		p.asking = append(p.asking, i)
	}
	if r.Host != "" {
		return p.addHost(i, r)
	}
	prefix, err := api.ParseCIDR(r.CIDR)
	if err != nil {
		return err
	}
	if c.allow {
		if err := openable(prefix, closed); err != nil {
			return err
		}
	}
	n := nodes[prefix]
	if n == nil {
		n = &node{prefix: prefix}
		nodes[prefix] = n
	}
	n.ids = append(n.ids, i)
	return nil
}

func compileRule(r api.NetworkRule) (rule, error) {
	c := rule{allow: r.Action == api.RuleAllow, opaque: r.Opaque, text: r.String()}
	switch {
	case r.Proto == "tcp" || r.Proto == "" && c.allow:
		c.protos = 1 << TCP
	case r.Proto == "udp":
		c.protos = 1 << UDP
	default:
		c.protos = bothProtos // a denial that forgot one would be a hole
	}
	for _, text := range r.Ports {
		low, high, err := api.ParsePorts(text)
		if err != nil {
			return c, err
		}
		c.ports = append(c.ports, portRange{low, high})
	}
	var err error
	if c.requests, err = compileRequests(r); c.requests != nil && c.ports == nil {
		c.ports = []portRange{{80, 80}, {443, 443}} // on others it would be no more than any rule
	}
	return c, err
}

// openable refuses ranges that no guest could reach, so that nobody believes that the rule does something.
func openable(prefix netip.Prefix, closed []closedPrefix) error {
	for _, c := range closed {
		if !c.never || c.prefix.Bits() > prefix.Bits() || !c.prefix.Contains(prefix.Addr()) {
			continue
		}
		err := errdefs.Invalid.Errorf("%s cannot be opened: it is %s", c.text, c.why)
		if prefix.Addr().IsLoopback() {
			return err.WithRemedy("--allow %s:PORT", HostName)
		}
		return err
	}
	return nil
}

func (p *Policy) addHost(i int32, r api.NetworkRule) error {
	if r.Host == "*" {
		p.star, p.wild = append(p.star, i), min(p.wild, i)
		return nil
	}
	zone, wild := strings.CutPrefix(r.Host, "*.")
	name, err := Canonical(zone)
	if err != nil {
		return errdefs.Invalid.Errorf("%q is no host name", r.Host).WithRemedy("addresses and ranges are a rule's cidr")
	}
	if c := p.rules[i].requests; c != nil {
		c.host, c.wild = name, wild
	}
	allow := r.Action == api.RuleAllow
	switch {
	case below(name, "localhost") && allow:
		return errdefs.Invalid.Errorf("localhost is the guest itself").WithRemedy("--allow %s:PORT", HostName)
	case below(name, reservedZone) && (wild || name != HostName):
		return errdefs.Invalid.Errorf("%s has only the name %s", reservedZone, HostName)
	case name == HostName && (r.OfRequests() || r.Opaque):
		return errdefs.Invalid.Errorf("connections to the host are not looked into").WithRemedy("--allow %s:PORT", HostName)
	case name == HostName && allow && len(r.Ports) == 0:
		return errdefs.Invalid.Errorf("it would open every service of the host").WithRemedy("--allow %s:PORT", HostName)
	case !wild:
		p.exact[name] = append(p.exact[name], i)
		return nil
	}
	p.suffix[name], p.wild = append(p.suffix[name], i), min(p.wild, i)
	p.depths |= 1 << min(strings.Count(name, ".")+1, maxDepth)
	return nil
}
