// Package network holds the policy of a VM's network: it compiles what a user asked for and says of each name and each flow
// whether it may be. It is pure: it opens no socket, reads no clock and resolves nothing.
//
// Layer: below supervisor, lifecycle and network/gateway. It may import api, errdefs.
package network

import (
	"math"
	"net/netip"

	"github.com/smolvm/smolvm/api"
)

// HostName is the name under which a guest reaches ports of its host's loopback, where a rule opens them.
const HostName = "host." + reservedZone

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
	Rule   string // the rule as text, or Default
	Reason string // for people; "" when it is allowed
	// Host means the host's loopback: dial 127.0.0.1 with the flow's port.
	Host bool
	// HTTP means that the flow is to be looked into, and each of its requests to be asked about with Request.
	HTTP bool
	// Opaque means that the flow is TLS for the name that it goes to, and stays closed to us.
	Opaque bool
}

// Default is the Rule of a verdict that no rule gave.
const Default = "default"

// Options are what a policy depends on beside itself.
type Options struct {
	HostAddrs []netip.Addr // the host's own, closed like private ones
	// SecretHosts are names, and "*.example.com" for all below one, to which secrets may go: what is put into requests to them
	// must be seen.
	SecretHosts []string
}

// Policy is a compiled policy. It never changes and is safe for concurrent use.
type Policy struct {
	mode      api.NetworkMode
	rules     []rule
	resolvers []netip.AddrPort

	exact  map[string][]int32 // indexes of rules, ascending, by name
	suffix map[string][]int32 // by what stands behind "*."
	depths uint64             // bit n: there is a suffix of n labels
	star   []int32            // for all names
	wild   int32              // the first of suffix and star
	addrs  ranges

	secrets secretHosts
	asking  []int32 // rules that say something about requests
}

// rule is one compiled rule.
type rule struct {
	allow    bool
	protos   uint8 // bit 1<<Proto
	opaque   bool
	ports    []portRange
	text     string
	requests *requests // nil: it says nothing about them

	_ [8]byte // a whole cache line each: many are looked at in no order
}

type portRange struct{ low, high uint16 }

// noRule stands for the index of a rule that is not there; every rule comes before it.
const noRule = math.MaxInt32

// bothProtos are all bits of rule.protos.
const bothProtos = 1<<TCP | 1<<UDP

// question is what is asked of the rules: whether a flow to this port may be, or whether some flow may.
type question struct {
	proto Proto
	port  uint16   // 0: any
	about *request // nil: the flow itself
}

// answers reports whether the rule decides the question. A denial for some ports leaves others, so that it does not decide
// whether some flow may be.
func (r *rule) answers(q question) bool {
	if q.port == 0 {
		return r.allow || r.ports == nil && r.protos == bothProtos
	}
	if r.protos>>q.proto&1 == 0 {
		return false
	}
	if r.ports == nil {
		return true
	}
	for _, p := range r.ports {
		if p.low <= q.port && q.port <= p.high {
			return q.about == nil || r.requests == nil || r.requests.matches(q.about)
		}
	}
	return false
}

// Mode is what decides where no rule does.
func (p *Policy) Mode() api.NetworkMode { return p.mode }

// Resolvers are the resolvers that the policy names; none means the host's.
func (p *Policy) Resolvers() []netip.AddrPort { return p.resolvers }

// Flow says whether the flow may be. With a zero Addr the answer is preliminary: it is asked again with each address that is
// about to be dialled.
func (p *Policy) Flow(f Flow) Verdict {
	if p.mode == api.NetNone {
		return deny("the VM has no network")
	}
	name, exact := f.Name, []int32(nil)
	if name != "" {
		if exact = p.exact[name]; exact == nil { // a name that has rules is canonical
			var err error
			if name, err = Canonical(name); err != nil {
				return deny("it is no host name")
			}
			exact = p.exact[name]
		}
	}
	if f.Proto > UDP || f.Port == 0 || name == "" && !f.Addr.IsValid() {
		return deny("it goes nowhere")
	}
	if name == HostName {
		return p.host(f)
	}
	q := question{proto: f.Proto, port: f.Port}
	byName := p.byName(name, exact, q)
	var at *node
	if f.Addr.IsValid() {
		var ok bool
		if at, ok = p.addrs.find(f.Addr); !ok {
			return deny(noAddress)
		}
	}
	byAddr := p.byAddr(at, name == "", q)
	first := min(byName, byAddr)
	v := Verdict{Allow: true}
	switch {
	case first == noRule:
		if v = p.fallback(name, at); !v.Allow {
			return v
		}
	case !p.rules[first].allow:
		return p.denied(first)
	// A name does not open a closed address, else whoever owns the name's zone could point it there. A rule for the
	// address must do that.
	case first == byName && at.closed() && (byAddr == noRule || !p.rules[byAddr].allow):
		return Verdict{Rule: p.rules[first].text, Reason: at.fence.reason}
	default:
		v.Rule = p.rules[first].text
	}
	switch {
	case name == "":
	case f.Proto == TCP:
		v.HTTP, v.Opaque = p.look(name, byName, f.Port)
	default:
		if why := p.unseen(name, exact, byName, f.Port); why != "" {
			return Verdict{Rule: v.Rule, Reason: why}
		}
	}
	return v
}

// noAddress is why a flow to what is no plain address is denied.
const noAddress = "it is no address"

func deny(reason string) Verdict { return Verdict{Rule: Default, Reason: reason} }

func (p *Policy) denied(i int32) Verdict {
	return Verdict{Rule: p.rules[i].text, Reason: "a rule denies it"}
}

// fallback decides where no rule does.
func (p *Policy) fallback(name string, at *node) Verdict {
	if p.mode == api.NetAllow {
		return deny("no rule allows it")
	}
	if why, closed := closedName(name); closed {
		return deny(why)
	}
	if at.closed() {
		return deny(at.fence.reason)
	}
	return Verdict{Allow: true, Rule: Default}
}

// host decides about a port of the host's loopback.
func (p *Policy) host(f Flow) Verdict {
	if a := f.Addr.Unmap(); a.IsValid() && a != netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		return deny("only the host's loopback has this name")
	}
	switch first := p.byName(HostName, p.exact[HostName], question{proto: f.Proto, port: f.Port}); {
	case first == noRule:
		return deny("no rule opens this port of the host")
	case !p.rules[first].allow:
		return p.denied(first)
	default:
		return Verdict{Allow: true, Rule: p.rules[first].text, Host: true}
	}
}

// Name says whether the guest may learn the name, that is, use it on some port.
func (p *Policy) Name(name string) Verdict {
	if p.mode == api.NetNone {
		return deny("the VM has no network")
	}
	name, err := Canonical(name)
	if err != nil {
		return deny("it is no host name")
	}
	why, special := closedName(name)
	switch first := p.byName(name, p.exact[name], question{}); {
	case first != noRule && p.rules[first].allow:
		return Verdict{Allow: true, Rule: p.rules[first].text, Host: name == HostName}
	case first != noRule:
		return p.denied(first)
	case special && p.mode == api.NetOpen:
		return deny(why)
	case p.mode == api.NetAllow:
		return deny("no rule allows it")
	}
	return Verdict{Allow: true, Rule: Default}
}

// maxDepth is the bit of depths that stands for it and all deeper ones.
const maxDepth = 63

// byName is the first rule for the name that answers; exact are those for just this name.
func (p *Policy) byName(name string, exact []int32, q question) int32 {
	best := p.first(exact, q, noRule, false)
	if best <= p.wild || name == "" {
		return best
	}
	// What covers many names does not open those that are closed.
	_, special := closedName(name)
	labels := 0
	for i := len(name) - 1; i > 0 && p.depths>>min(labels, maxDepth) != 0; i-- {
		if name[i] != '.' {
			continue
		}
		if labels++; p.depths>>min(labels, maxDepth)&1 != 0 {
			best = p.first(p.suffix[name[i+1:]], q, best, special)
		}
	}
	return p.first(p.star, q, best, special)
}

// byAddr is the first rule that answers and whose range holds the address. Where the address is closed, only what lies
// within the closed range opens it: who allows 0.0.0.0/0 means the internet. bare says that the flow has no name: rules that
// deny all names deny it too.
func (p *Policy) byAddr(at *node, bare bool, q question) int32 {
	best, fenced := int32(noRule), false
	for n := at; n != nil; n = n.parent {
		best = p.first(n.ids, q, best, fenced)
		fenced = fenced || n.entry != nil
	}
	if bare {
		best = p.first(p.star, q, best, true)
	}
	return best
}

// first is the first of the rules ids that answers and comes before best; else best.
func (p *Policy) first(ids []int32, q question, best int32, denialsOnly bool) int32 {
	for _, i := range ids {
		if i >= best {
			break
		}
		if r := &p.rules[i]; r.answers(q) && !(denialsOnly && r.allow) {
			return i
		}
	}
	return best
}

// Closed reports whether an address is in the closed table or the host's own, and no rule opens any port of it. Answers with
// such addresses are not shown to the guest. What may be dialled, Flow says.
func (p *Policy) Closed(addr netip.Addr) bool {
	n, ok := p.addrs.find(addr)
	return !ok || n.closed() && !p.opened(n)
}

func (p *Policy) opened(n *node) bool {
	for ; n != nil; n = n.parent {
		for _, i := range n.ids {
			if p.rules[i].allow {
				return true
			}
		}
		if n.entry != nil {
			return false
		}
	}
	return false
}
