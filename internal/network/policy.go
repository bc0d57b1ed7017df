// Package network holds the policy of a VM's network: it compiles what a user asked for and says of each name and each flow
// whether it may be. It is pure: it opens no socket, reads no clock and resolves nothing.
//
// Layer: below supervisor, lifecycle and network/gateway. It may import api, errdefs.
package network

import (
	"net/netip"

	"github.com/smolvm/smolvm/api"
)

// HostName is the name under which a guest reaches ports of its host's loopback, where a rule opens them.
const HostName = "host.smolvm.internal"

// Proto is a transport protocol.
type Proto uint8

// The protocols.
const (
	TCP Proto = iota
	UDP
)

// Flow is what a guest wants to reach.
type Flow struct {
	Proto Proto
	Name  string     // "" when it goes to an address that the gateway gave no name
	Addr  netip.Addr // the real one; zero while only the name is known
	Port  uint16
}

// Verdict is what the policy says.
type Verdict struct {
	Allow  bool
	Rule   string // the rule as text, or "default"
	Reason string // for people; "" when it is allowed
	// Host means the host's loopback: dial 127.0.0.1 with the flow's port.
	Host bool
}

// Options are what a policy depends on beside itself.
type Options struct {
	HostAddrs []netip.Addr // the host's own, closed like private ones
}

// Policy is a compiled policy. It never changes and is safe for concurrent use.
type Policy struct {
	mode api.NetworkMode
}

// Compile checks a policy and makes it fast to ask.
func Compile(p api.NetworkPolicy, _ Options) (*Policy, error) { return &Policy{mode: p.Mode}, nil }

// Mode is what decides where no rule does.
func (p *Policy) Mode() api.NetworkMode { return p.mode }

// Name says whether the guest may learn the name, that is, use it on some port.
func (p *Policy) Name(string) Verdict { return Verdict{} }

// Flow says whether the flow may be. With a zero Addr the answer is preliminary: it is asked again with each address that is
// about to be dialled.
func (p *Policy) Flow(Flow) Verdict { return Verdict{} }

// Closed reports whether an address is in the closed table or the host's own, and no rule opens any port of it. Answers with
// such addresses are not shown to the guest.
func (p *Policy) Closed(netip.Addr) bool { return true }

// Resolvers are the resolvers that the policy names; none means the host's.
func (p *Policy) Resolvers() []netip.AddrPort { return nil }

// Canonical returns a name as the policy compares it: lower case, IDNA, no trailing dot. What is no host name, or is an
// address in disguise, is an error.
func Canonical(name string) (string, error) { return name, nil }
