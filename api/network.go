package api

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/smolvm/smolvm/errdefs"
)

// Limits of a network policy.
const (
	MaxNetworkRules = 4096
	MaxResolvers    = 8

	MaxRateKBps     = 100_000_000
	MaxConnsLimit   = 65_536
	MaxPerSecLimit  = 1_000_000
	maxPortsPerRule = 64
	maxRulesBytes   = 512 << 10 // of all rules: they are passed on in one piece
)

// NetworkMode says what a VM's network is for flows that no rule decides.
type NetworkMode string

// The modes.
const (
	NetOpen  NetworkMode = "open"  // the public internet; everything private is closed
	NetNone  NetworkMode = "none"  // nothing
	NetAllow NetworkMode = "allow" // what rules allow
)

// NetworkPolicy says what a VM may reach. The zero value is mode open.
type NetworkPolicy struct {
	Mode  NetworkMode   `json:"mode,omitempty" yaml:"mode,omitempty"`
	Rules []NetworkRule `json:"rules,omitempty" yaml:"rules,omitempty"` // the first that matches decides
	// DNS are the resolvers that the gateway asks, as ADDRESS or ADDRESS:PORT. None: the host's.
	DNS []string `json:"dns,omitempty" yaml:"dns,omitempty"`

	// Limits; 0 is the gateway's default.
	RateKBps     int `json:"rate_kbps,omitempty" yaml:"rate_kbps,omitempty"`             // kilobytes per second, each way
	MaxConns     int `json:"max_conns,omitempty" yaml:"max_conns,omitempty"`             // at once
	MaxNewPerSec int `json:"max_new_per_sec,omitempty" yaml:"max_new_per_sec,omitempty"` // new flows
	MaxDNSPerSec int `json:"max_dns_per_sec,omitempty" yaml:"max_dns_per_sec,omitempty"` // questions
}

// WithDefaults names the mode of a policy that says nothing. One with rules must name it itself: their sense depends on it.
func (p NetworkPolicy) WithDefaults() NetworkPolicy {
	if p.Mode == "" && len(p.Rules) == 0 {
		p.Mode = NetOpen
	}
	return p
}

// String tells the policy in a few words.
func (p NetworkPolicy) String() string {
	p = p.WithDefaults()
	switch len(p.Rules) {
	case 0:
		return string(p.Mode)
	case 1:
		return string(p.Mode) + ", 1 rule"
	default:
		return string(p.Mode) + ", " + strconv.Itoa(len(p.Rules)) + " rules"
	}
}

// Validate refuses what cannot be a policy. Whether names are names, and rules possible, is for internal/network to say.
func (p NetworkPolicy) Validate() error {
	switch p.Mode {
	case NetOpen, NetAllow:
	case NetNone:
		if len(p.Rules) > 0 {
			return errdefs.Invalid.Errorf("network: mode none takes no rules").WithRemedy("mode allow, which reaches only what rules allow")
		}
	case "":
		if len(p.Rules) > 0 {
			return errdefs.Invalid.Errorf("network: rules without a mode").WithRemedy("mode: allow (only what rules allow) or mode: open (the public internet too)")
		}
	default:
		return errdefs.Invalid.Errorf("network: mode %q is neither open, none nor allow", p.Mode)
	}
	if len(p.Rules) > MaxNetworkRules {
		return errdefs.Invalid.Errorf("network: %d rules are more than %d", len(p.Rules), MaxNetworkRules)
	}
	total := 0
	for i, r := range p.Rules {
		if err := r.Validate(); err != nil {
			return errdefs.Invalid.Errorf("network: rule %d: %w", i+1, err)
		}
		total += len(r.String())
	}
	if total > maxRulesBytes {
		return errdefs.Invalid.Errorf("network: the rules have %d bytes, more than %d", total, maxRulesBytes)
	}
	if len(p.DNS) > MaxResolvers {
		return errdefs.Invalid.Errorf("network: %d resolvers are more than %d", len(p.DNS), MaxResolvers)
	}
	for _, text := range p.DNS {
		if _, err := ParseResolver(text); err != nil {
			return err
		}
	}
	return p.validateLimits()
}

func (p NetworkPolicy) validateLimits() error {
	for _, l := range []struct {
		name       string
		value, max int
	}{
		{"rate_kbps", p.RateKBps, MaxRateKBps},
		{"max_conns", p.MaxConns, MaxConnsLimit},
		{"max_new_per_sec", p.MaxNewPerSec, MaxPerSecLimit},
		{"max_dns_per_sec", p.MaxDNSPerSec, MaxPerSecLimit},
	} {
		if l.value < 0 || l.value > l.max {
			return errdefs.Invalid.Errorf("network: %s: %d is not within 0 (the default) to %d", l.name, l.value, l.max)
		}
	}
	return nil
}

// ParseResolver reads a resolver of NetworkPolicy.DNS; without a port it is 53.
func ParseResolver(text string) (netip.AddrPort, error) {
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		var addr netip.Addr
		if addr, err = netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")); err == nil {
			at = netip.AddrPortFrom(addr, 53)
		}
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if err != nil || at.Port() == 0 || at.Addr().IsUnspecified() || at.Addr().IsMulticast() {
		return netip.AddrPort{}, errdefs.Invalid.Errorf("dns: %q is no resolver's address", text).WithRemedy("--dns 192.0.2.53, or --dns 192.0.2.53:5353")
	}
	return at, nil
}

// NetRecord is one line of a VM's network audit: a DNS question, or a connection or a request of HTTP at its end or when it was
// refused.
type NetRecord struct {
	Time time.Time `json:"time"` // of the question, or of the connection's or the request's beginning
	Kind string    `json:"kind"` // "dns", "tcp", "udp", "http", "icmp", "frame", "port", "dropped"
	Name string    `json:"name,omitempty"`
	Addr string    `json:"addr,omitempty"` // the real address
	Port int       `json:"port,omitempty"`
	// Proto is how the guest asked: "tcp" or "udp".
	Proto      string `json:"proto,omitempty"`
	QType      string `json:"qtype,omitempty"`   // of a DNS question: "A", "AAAA", "TXT", …
	Verdict    string `json:"verdict,omitempty"` // "allow" or "deny"
	Rule       string `json:"rule,omitempty"`
	Reason     string `json:"reason,omitempty"`    // for people
	BytesIn    int64  `json:"bytes_in,omitempty"`  // of a request: of its response's body, which its connection counts too
	BytesOut   int64  `json:"bytes_out,omitempty"` // from the guest
	DurationMs int64  `json:"duration_ms,omitempty"`
	Method     string `json:"method,omitempty"` // of a request
	Path       string `json:"path,omitempty"`   // of a request: decoded, without the query
	Status     int    `json:"status,omitempty"` // of a request's response
	// HTTPVersion is what a request came by: "HTTP/1.1", "HTTP/2".
	HTTPVersion string `json:"http_version,omitempty"`
	// Secrets are the names of those that were put into a request.
	Secrets []string `json:"secrets,omitempty"`
	// Count is how many a "dropped" record stands for, or one about frames that are no flows.
	Count int64 `json:"count,omitempty"`
}

// NetStats adds up the records that are kept of a VM's network.
type NetStats struct {
	Since        time.Time `json:"since,omitzero"` // of the oldest record
	Records      int64     `json:"records"`
	Dropped      int64     `json:"dropped"` // records that came too fast, or that the disk did not take
	DNSAllowed   int64     `json:"dns_allowed"`
	DNSDenied    int64     `json:"dns_denied"`
	FlowsAllowed int64     `json:"flows_allowed"`
	FlowsDenied  int64     `json:"flows_denied"`
	OtherDenied  int64     `json:"other_denied"` // frames that are no flows
	Requests     int64     `json:"requests"`     // of HTTP, in connections that were looked into
	// RequestsDenied are those of them that were refused.
	RequestsDenied int64     `json:"requests_denied"`
	BytesIn        int64     `json:"bytes_in"`
	BytesOut       int64     `json:"bytes_out"` // from the guest
	Peers          []NetPeer `json:"peers"`     // by bytes, the greatest first
	MorePeers      int       `json:"more_peers,omitempty"`
}

// NetPeer is one name, or an address without a name.
type NetPeer struct {
	Name     string `json:"name"`
	Allowed  int64  `json:"allowed"` // questions and flows
	Denied   int64  `json:"denied"`
	BytesIn  int64  `json:"bytes_in"`
	BytesOut int64  `json:"bytes_out"`

	Requests       int64 `json:"requests"` // of HTTP
	RequestsDenied int64 `json:"requests_denied"`
}
