// Package dns answers a guest's questions about names. It decides by the policy; what it asks of the host's resolver it asks
// anew, and what it answers it builds itself, so that no byte of the guest's or of a server's passes through.
//
// Layer: network, below gateway. It may import network, api.
package dns

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network"
)

// Resolver is the host's; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

// NewResolver asks the host's resolver, or those that are named.
func NewResolver(servers []netip.AddrPort) Resolver {
	r := &net.Resolver{PreferGo: true}
	if len(servers) > 0 {
		r.Dial = func(ctx context.Context, proto, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, proto, servers[rand.N(len(servers))].String()) //nolint:gosec // nobody guesses anything here
		}
	}
	return r
}

// Options are what a Server works with.
type Options struct {
	Policy   func() *network.Policy
	Names    *network.Synthetic
	Resolver func() Resolver
	// ByName makes every name's address a synthetic one, as mode allow does: where the host has a proxy, which one leads to a
	// name is decided by the name, and nobody here may be able to resolve it.
	ByName bool
	// Record and Seen may be nil: they take the audit's records, and which name an address was told for.
	Record func(api.NetRecord)
	Seen   func(addr netip.Addr, name string)
	// Timeout bounds one question, 0 = 10 s.
	Timeout time.Duration
}

// Server answers questions.
type Server struct{ o Options }

// New makes a Server.
func New(o Options) *Server {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Record == nil {
		o.Record = func(api.NetRecord) {}
	}
	if o.Seen == nil {
		o.Seen = func(netip.Addr, string) {}
	}
	return &Server{o}
}

const (
	// How long a guest may keep what it was told.
	ttlSynthetic = 60
	ttlReal      = 30

	maxAnswers = 24
	minUDP     = 512
	maxUDP     = 1232
	maxTCP     = 0xffff
)

// question is one that is well formed.
type question struct {
	id     uint16
	rd     bool
	q      dnsmessage.Question
	edns   bool
	room   int // bytes that the answer may have
	proto  string
	opcode dnsmessage.OpCode
}

// reply is what a question is answered.
type reply struct {
	code    dnsmessage.RCode
	records []dnsmessage.Resource
	verdict network.Verdict
	addr    string // for the audit
}

// Answer answers one message. It is nil only for what cannot be answered: an answer, or less than a header. limited refuses
// it without a look at its name.
func (s *Server) Answer(ctx context.Context, msg []byte, tcp, limited bool) []byte {
	q, code, ok := parse(msg, tcp)
	if !ok {
		return nil
	}
	if code != dnsmessage.RCodeSuccess {
		return q.build(reply{code: code})
	}
	begin := time.Now()
	r := reply{code: dnsmessage.RCodeRefused, verdict: network.Verdict{Rule: "limit", Reason: "too many questions"}}
	if !limited {
		ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
		defer cancel()
		r = s.resolve(ctx, q)
	}
	rec := api.NetRecord{
		Time: begin, Kind: "dns", Name: trimDot(q.q.Name.String()), Addr: r.addr, Proto: q.proto, QType: typeName(q.q.Type), Verdict: "deny",
		Rule: r.verdict.Rule, Reason: r.verdict.Reason, DurationMs: time.Since(begin).Milliseconds(),
	}
	if r.verdict.Allow {
		rec.Verdict = "allow"
	}
	s.o.Record(rec)
	return q.build(r)
}

// parse reads a message. ok is false where nothing can be answered.
func parse(msg []byte, tcp bool) (q question, code dnsmessage.RCode, ok bool) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response {
		return q, 0, false
	}
	q = question{id: h.ID, rd: h.RecursionDesired, opcode: h.OpCode, room: minUDP, proto: "udp"}
	if tcp {
		q.room, q.proto = maxTCP, "tcp"
	}
	if h.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented, true
	}
	if q.q, err = p.Question(); err != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	if _, err := p.Question(); err != dnsmessage.ErrSectionDone { //nolint:errorlint // the package's own sentinel
		return q, dnsmessage.RCodeFormatError, true
	}
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	for range 4 {
		rh, err := p.AdditionalHeader()
		if err != nil {
			break
		}
		if rh.Type == dnsmessage.TypeOPT {
			q.edns = true
			if !tcp {
				q.room = min(max(int(rh.Class), minUDP), maxUDP)
			}
		}
		if p.SkipAdditional() != nil {
			break
		}
	}
	if q.q.Class != dnsmessage.ClassINET {
		return q, dnsmessage.RCodeRefused, true
	}
	return q, dnsmessage.RCodeSuccess, true
}

// build makes the message. One that does not fit is cut down to its head, so that the guest asks again over TCP.
func (q question) build(r reply) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{
		ID: q.id, Response: true, OpCode: q.opcode, RecursionDesired: q.rd, RecursionAvailable: true, RCode: r.code,
	}}
	if q.q.Name.Length > 0 {
		m.Questions = []dnsmessage.Question{q.q}
	}
	m.Answers = r.records
	if q.edns {
		var h dnsmessage.ResourceHeader
		if h.SetEDNS0(maxUDP, dnsmessage.RCodeSuccess, false) == nil {
			m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
		}
	}
	for {
		b, err := m.Pack()
		if err == nil && len(b) <= q.room {
			return b
		}
		if len(m.Answers) == 0 {
			return nil
		}
		if q.proto == "tcp" || err != nil {
			m.Answers = m.Answers[:len(m.Answers)/2]
			continue
		}
		m.Answers, m.Header.Truncated = nil, true
	}
}

func trimDot(name string) string {
	if len(name) > 1 && name[len(name)-1] == '.' {
		return name[:len(name)-1]
	}
	return name
}

func typeName(t dnsmessage.Type) string {
	s := t.String()
	if len(s) > 4 && s[:4] == "Type" {
		return s[4:]
	}
	return "TYPE" + s
}
