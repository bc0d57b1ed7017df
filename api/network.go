package api

import "time"

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
}

// WithDefaults names the mode of a policy that says nothing. One with rules must name it itself: their sense depends on it.
func (p NetworkPolicy) WithDefaults() NetworkPolicy {
	if p.Mode == "" && len(p.Rules) == 0 {
		p.Mode = NetOpen
	}
	return p
}

// Validate refuses what cannot be a policy.
func (p NetworkPolicy) Validate() error { return nil }

// NetRecord is one line of a VM's network audit: a DNS question, or a connection at its end or when it was refused.
type NetRecord struct {
	Time time.Time `json:"time"` // of the question, or of the connection's beginning
	Kind string    `json:"kind"` // "dns", "tcp", "udp", "icmp", "port", "policy", "dropped"
	Name string    `json:"name,omitempty"`
	Addr string    `json:"addr,omitempty"` // the real address
	Port int       `json:"port,omitempty"`
	// Proto is how the guest asked: "tcp" or "udp".
	Proto      string `json:"proto,omitempty"`
	QType      string `json:"qtype,omitempty"` // of a DNS question: "A", "AAAA", "TXT", …
	Verdict    string `json:"verdict"`         // "allow" or "deny"
	Rule       string `json:"rule,omitempty"`
	Reason     string `json:"reason,omitempty"` // for people
	BytesIn    int64  `json:"bytes_in,omitempty"`
	BytesOut   int64  `json:"bytes_out,omitempty"` // from the guest
	DurationMs int64  `json:"duration_ms,omitempty"`
	// Count is how many records a "dropped" one stands for.
	Count int64 `json:"count,omitempty"`
}
