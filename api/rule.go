package api

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// RuleAction is what a rule does with what it matches.
type RuleAction string

// The actions.
const (
	RuleAllow RuleAction = "allow"
	RuleDeny  RuleAction = "deny"
)

// NetworkRule allows or denies flows, by the name or by the address that they go to: exactly one of Host and CIDR is set.
type NetworkRule struct {
	Action RuleAction `json:"action" yaml:"action"`
	// Host is a name, "*.example.com" for all names below it (not example.com itself), or "*" for all names.
	Host string `json:"host,omitempty" yaml:"host,omitempty"`
	// CIDR is a range of addresses, or one address.
	CIDR string `json:"cidr,omitempty" yaml:"cidr,omitempty"`
	// Ports are numbers ("443") and ranges ("8000-8100"); none means all.
	Ports []string `json:"ports,omitempty" yaml:"ports,omitempty"`
	// Proto is "tcp" or "udp". Empty: an allow rule is for TCP, a deny rule for both.
	Proto string `json:"proto,omitempty" yaml:"proto,omitempty"`

	// What follows is about requests of HTTP, and for allow rules by Host. A rule with Methods, Paths, MaxResponseKB or
	// ResponseKBps is for nothing but such requests: without Ports, for the ports 80 and 443.

	// Methods are upper case; none means all.
	Methods []string `json:"methods,omitempty" yaml:"methods,omitempty"`
	// Paths are globs for the decoded path: * within a segment, ** for any number of segments; none means all.
	Paths []string `json:"paths,omitempty" yaml:"paths,omitempty"`
	// Opaque leaves the connections closed: of TLS only the server's name is read, and no request is seen.
	Opaque bool `json:"opaque,omitempty" yaml:"opaque,omitempty"`
	// MaxResponseKB bounds a response's body, in kilobytes; 0 is no bound.
	MaxResponseKB int `json:"max_response_kb,omitempty" yaml:"max_response_kb,omitempty"`
	// ResponseKBps bounds how fast a response's body comes, in kilobytes per second; 0 is no bound.
	ResponseKBps int `json:"response_kbps,omitempty" yaml:"response_kbps,omitempty"`
}

// ParseRule reads a rule as the command line has it: HOST[:PORTS][/PROTO], where HOST is a name or a range of addresses
// and PORTS are separated by commas; behind it =METHODS[:PATHS], each separated by commas, METHODS * for all, or =opaque.
// IPv6 in front of ports stands in brackets.
func ParseRule(action RuleAction, text string) (NetworkRule, error) {
	r := NetworkRule{Action: action}
	target, requests, given := strings.Cut(text, "=")
	if rest, proto, ok := cutLast(target, "/"); ok && (proto == "tcp" || proto == "udp") {
		target, r.Proto = rest, proto
	}
	target, ports := splitPorts(target)
	if ports != "" {
		r.Ports = strings.Split(ports, ",")
	}
	if _, err := netip.ParseAddr(target); err == nil || strings.Contains(target, "/") {
		r.CIDR = target
	} else {
		r.Host = target
	}
	var err error
	if given {
		err = r.parseRequests(requests)
	}
	if err == nil {
		err = r.Validate()
	}
	if err != nil {
		return NetworkRule{}, errdefs.Invalid.Errorf("%s %q: %w", action, text, err)
	}
	return r, nil
}

// splitPorts takes the ports off. A bare IPv6 range has none.
func splitPorts(text string) (target, ports string) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		target, rest, closed := strings.Cut(inner, "]")
		if rest == "" && closed {
			return target, ""
		}
		if ports, ok := strings.CutPrefix(rest, ":"); ok && ports != "" {
			return target, ports
		}
		return text, "" // which Validate refuses
	}
	if strings.Count(text, ":") > 1 {
		return text, ""
	}
	target, ports, given := strings.Cut(text, ":")
	if given && ports == "" {
		return text, ""
	}
	return target, ports
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// String is the rule as ParseRule reads it, behind its action.
func (r NetworkRule) String() string {
	target := r.Host
	if r.CIDR != "" {
		target = r.CIDR
		if len(r.Ports) > 0 && strings.Contains(target, ":") {
			target = "[" + target + "]"
		}
	}
	if len(r.Ports) > 0 {
		target += ":" + strings.Join(r.Ports, ",")
	}
	if r.Proto != "" {
		target += "/" + r.Proto
	}
	return string(r.Action) + " " + target + r.requests()
}

// Validate refuses what cannot be a rule.
func (r NetworkRule) Validate() error {
	switch r.Action {
	case RuleAllow, RuleDeny:
	default:
		return errdefs.Invalid.Errorf("action %q is neither allow nor deny", r.Action)
	}
	switch r.Proto {
	case "", "tcp", "udp":
	default:
		return errdefs.Invalid.Errorf("proto %q is neither tcp nor udp", r.Proto)
	}
	if len(r.Ports) > maxPortsPerRule {
		return errdefs.Invalid.Errorf("%d ports and ranges are more than %d", len(r.Ports), maxPortsPerRule)
	}
	for _, p := range r.Ports {
		if _, _, err := ParsePorts(p); err != nil {
			return err
		}
	}
	if err := r.validateRequests(); err != nil {
		return err
	}
	switch {
	case (r.Host == "") == (r.CIDR == ""):
		return errdefs.Invalid.Errorf("give either a host or a cidr")
	case r.Host != "":
		return validateHost(r.Host)
	default:
		_, err := ParseCIDR(r.CIDR)
		return err
	}
}

// ParsePorts reads one of a rule's ports: "443" or "8000-8100".
func ParsePorts(text string) (low, high uint16, err error) {
	a, b, isRange := strings.Cut(text, "-")
	if !isRange {
		b = a
	}
	l, lerr := parsePort(a)
	h, herr := parsePort(b)
	if lerr != nil || herr != nil || l > h {
		return 0, 0, errdefs.Invalid.Errorf("%q is neither a port nor a range of ports within 1 to 65535", text)
	}
	return l, h, nil
}

// parsePort is strict: "+80" and "080" are what somebody else may read in another way.
func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != text {
		return 0, errdefs.Invalid.Errorf("%q is no port", text)
	}
	return uint16(n), nil
}

// ParseCIDR reads a range of addresses, or one address. It says no to what could be meant in another way.
func ParseCIDR(text string) (netip.Prefix, error) {
	var p netip.Prefix
	addr, err := netip.ParseAddr(text)
	if err == nil {
		p = netip.PrefixFrom(addr.WithZone(""), addr.BitLen())
	} else {
		p, err = netip.ParsePrefix(text)
	}
	switch {
	case err != nil || addr.Zone() != "":
		return p, errdefs.Invalid.Errorf("%q is no range of addresses", text).WithRemedy("write it as 192.0.2.0/24, 192.0.2.7 or 2001:db8::/32")
	case p.Addr().Is4In6():
		return p, errdefs.Invalid.Errorf("%q is IPv4 in the clothes of IPv6", text).WithRemedy("write it as 192.0.2.0/24")
	case p.Masked() != p:
		return p, errdefs.Invalid.Errorf("%q has bits beyond its length", text).WithRemedy("write %s, or %s for the one address", p.Masked(), p.Addr())
	}
	return p, nil
}

// validateHost refuses what no name could be. What is not ASCII is left to internal/network, which knows IDNA.
func validateHost(host string) error {
	name := host
	if host == "*" {
		return nil
	}
	if rest, ok := strings.CutPrefix(host, "*."); ok {
		name = rest
	}
	bad := strings.IndexFunc(name, func(c rune) bool {
		return c < 0x80 && !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.')
	})
	switch {
	case strings.Contains(name, "*"):
		return errdefs.Invalid.Errorf("%q: a star stands for all names (*) or in front of a name (*.example.com)", host)
	case name == "" || len(name) > 1024 || bad >= 0 || strings.HasPrefix(name, ".") || strings.Contains(name, ".."):
		return errdefs.Invalid.Errorf("%q is no host name", host)
	}
	return nil
}
