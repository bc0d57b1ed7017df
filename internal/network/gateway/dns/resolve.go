package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network"
)

// resolve decides a question.
func (s *Server) resolve(ctx context.Context, q question) reply {
	name := trimDot(q.q.Name.String())
	if q.q.Type == dnsmessage.TypePTR {
		return s.pointer(ctx, q, strings.ToLower(name))
	}
	// Names of services are no host names; what is below them is.
	prefix, rest := service(name)
	canonical, err := network.Canonical(rest)
	if err != nil {
		return reply{code: dnsmessage.RCodeNameError, verdict: network.Verdict{Reason: "no host name"}}
	}
	p := s.o.Policy()
	v := p.Name(canonical)
	if !v.Allow {
		return reply{code: dnsmessage.RCodeNameError, verdict: v}
	}
	switch {
	case q.q.Type == dnsmessage.TypeA && prefix == "":
		return s.address(ctx, p, q, canonical, v)
	case v.Host || p.Mode() != api.NetOpen:
		// Only we decide here: asking others about it would be a way out.
		return reply{verdict: v}
	}
	return s.other(ctx, q, prefix+canonical, v)
}

// service splits leading labels with an underscore off a name, as SRV and TXT questions have them.
func service(name string) (prefix, rest string) {
	rest = name
	for strings.HasPrefix(rest, "_") {
		label, after, ok := strings.Cut(rest, ".")
		if !ok {
			break
		}
		prefix, rest = prefix+strings.ToLower(label)+".", after
	}
	return prefix, rest
}

// address answers for A.
func (s *Server) address(ctx context.Context, p *network.Policy, q question, name string, v network.Verdict) reply {
	if s.o.ByName || p.Synthetic(name) {
		return s.synthetic(q, name, v)
	}
	found, err := s.o.Resolver().LookupNetIP(ctx, "ip", name+".")
	if err != nil {
		return failed(err, v)
	}
	r := reply{verdict: v}
	v6, closed := false, false
	for _, a := range found {
		a = a.Unmap()
		switch {
		case p.Closed(a):
			closed = true
		case !a.Is4():
			v6 = true
		case len(r.records) < maxAnswers:
			r.records = append(r.records, resource(q, ttlReal, &dnsmessage.AResource{A: a.As4()}))
			s.o.Seen(a, name)
			if r.addr == "" {
				r.addr = a.String()
			}
		}
	}
	if len(r.records) > 0 {
		return r
	}
	if v6 {
		return s.synthetic(q, name, v)
	}
	if closed {
		r.verdict = network.Verdict{Rule: v.Rule, Reason: "it has only addresses that are closed"}
	}
	return r
}

// synthetic answers with the name's own address, which leads to whatever the name stands for when it is dialled.
func (s *Server) synthetic(q question, name string, v network.Verdict) reply {
	a := s.o.Names.Addr(name)
	if !a.Is4() {
		return reply{code: dnsmessage.RCodeServerFailure, verdict: network.Verdict{Rule: v.Rule, Reason: "no synthetic address is left"}}
	}
	return reply{verdict: v, addr: a.String(), records: []dnsmessage.Resource{resource(q, ttlSynthetic, &dnsmessage.AResource{A: a.As4()})}}
}

// other answers for what is not an address. Types that nobody here knows have no records.
func (s *Server) other(ctx context.Context, q question, name string, v network.Verdict) reply {
	r := reply{verdict: v}
	var err error
	add := func(b dnsmessage.ResourceBody) {
		if len(r.records) < maxAnswers {
			r.records = append(r.records, resource(q, ttlReal, b))
		}
	}
	switch q.q.Type {
	case dnsmessage.TypeTXT:
		var texts []string
		texts, err = s.o.Resolver().LookupTXT(ctx, name+".")
		for _, t := range texts {
			add(&dnsmessage.TXTResource{TXT: pieces(t)})
		}
	case dnsmessage.TypeMX:
		var mxs []*net.MX
		mxs, err = s.o.Resolver().LookupMX(ctx, name+".")
		for _, m := range mxs {
			if host, nerr := dnsmessage.NewName(m.Host); nerr == nil {
				add(&dnsmessage.MXResource{Pref: m.Pref, MX: host})
			}
		}
	case dnsmessage.TypeSRV:
		var srvs []*net.SRV
		_, srvs, err = s.o.Resolver().LookupSRV(ctx, "", "", name+".")
		for _, m := range srvs {
			if host, nerr := dnsmessage.NewName(m.Target); nerr == nil {
				add(&dnsmessage.SRVResource{Priority: m.Priority, Weight: m.Weight, Port: m.Port, Target: host})
			}
		}
	default:
		return r
	}
	if len(r.records) == 0 && err != nil {
		return failed(err, v)
	}
	return r
}

// pieces cuts a text into the strings of at most 255 bytes that a record holds.
func pieces(t string) []string {
	var out []string
	for len(t) > 255 {
		out, t = append(out, t[:255]), t[255:]
	}
	return append(out, t)
}

// pointer answers for PTR: of a synthetic address from the table, of a public one in open mode by asking.
func (s *Server) pointer(ctx context.Context, q question, name string) reply {
	refused := reply{code: dnsmessage.RCodeNameError, verdict: network.Verdict{Rule: "default", Reason: "the address is closed"}}
	a, ok := reverse(name)
	if !ok {
		return refused
	}
	r := reply{verdict: network.Verdict{Allow: true, Rule: "default"}, addr: a.String()}
	p := s.o.Policy()
	if known, ok := s.o.Names.Name(a); ok {
		if v := p.Name(known); !v.Allow {
			return refused
		}
		if host, err := dnsmessage.NewName(known + "."); err == nil {
			r.records = append(r.records, resource(q, ttlSynthetic, &dnsmessage.PTRResource{PTR: host}))
		}
		return r
	}
	if p.Mode() != api.NetOpen || p.Closed(a) {
		return refused
	}
	names, err := s.o.Resolver().LookupAddr(ctx, a.String())
	for _, n := range names {
		if host, nerr := dnsmessage.NewName(n); nerr == nil && len(r.records) < maxAnswers {
			r.records = append(r.records, resource(q, ttlReal, &dnsmessage.PTRResource{PTR: host}))
		}
	}
	if len(r.records) == 0 && err != nil {
		return failed(err, r.verdict)
	}
	return r
}

// reverse reads d.c.b.a.in-addr.arpa.
func reverse(name string) (netip.Addr, bool) {
	rest, ok := strings.CutSuffix(name, ".in-addr.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	labels := strings.Split(rest, ".")
	if len(labels) != 4 {
		return netip.Addr{}, false
	}
	var b [4]byte
	for i, l := range labels {
		n, err := strconv.ParseUint(l, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != l {
			return netip.Addr{}, false
		}
		b[3-i] = byte(n)
	}
	return netip.AddrFrom4(b), true
}

// failed tells a name that is not there from a resolver that is not.
func failed(err error, v network.Verdict) reply {
	var d *net.DNSError
	if errors.As(err, &d) && d.IsNotFound {
		return reply{code: dnsmessage.RCodeNameError, verdict: v}
	}
	v.Reason = "the resolver failed"
	return reply{code: dnsmessage.RCodeServerFailure, verdict: v}
}

func resource(q question, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.q.Name, Class: dnsmessage.ClassINET, TTL: ttl}, Body: body}
}
