package dns

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network"
)

// zone is a resolver. It fails the test when it is asked where nobody may ask.
type zone struct {
	addrs map[string][]netip.Addr
	err   error
	asked []string
}

func (z *zone) note(name string) { z.asked = append(z.asked, name) }

func (z *zone) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	z.note(host)
	if a, ok := z.addrs[host]; ok {
		return a, z.err
	}
	if z.err != nil {
		return nil, z.err
	}
	return nil, &net.DNSError{IsNotFound: true}
}

func (z *zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	z.note(name)
	return []string{strings.Repeat("x", 300), "second"}, nil
}

func (z *zone) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	z.note(name)
	return []*net.MX{{Host: "mail.example.", Pref: 10}, {Host: strings.Repeat("x", 300)}}, nil
}

func (z *zone) LookupSRV(_ context.Context, _, _, name string) (string, []*net.SRV, error) {
	z.note(name)
	return "", []*net.SRV{{Target: "srv.example.", Port: 5060}}, nil
}

func (z *zone) LookupAddr(_ context.Context, addr string) ([]string, error) {
	z.note(addr)
	return []string{"back.example."}, nil
}

func server(t testing.TB, p api.NetworkPolicy, z *zone) (*Server, *[]api.NetRecord) {
	t.Helper()
	c, err := network.Compile(p, network.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var records []api.NetRecord
	return New(Options{
		Policy: func() *network.Policy { return c }, Names: network.NewSynthetic(nil), Resolver: func() Resolver { return z },
		Record: func(r api.NetRecord) { records = append(records, r) }, Timeout: time.Second,
	}), &records
}

func message(t testing.TB, name string, kind dnsmessage.Type, change func(*dnsmessage.Message)) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 99, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	if change != nil {
		change(&m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ask(t testing.TB, s *Server, msg []byte) dnsmessage.Message {
	t.Helper()
	b := s.Answer(t.Context(), msg, false, false)
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	if m.Header.ID != 99 || !m.Header.Response {
		t.Errorf("header %+v", m.Header)
	}
	return m
}

// TestOpen: every type is answered by something, and nothing is passed on as it came.
func TestOpen(t *testing.T) {
	var many []netip.Addr
	for i := range 100 {
		many = append(many, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}))
	}
	z := &zone{addrs: map[string][]netip.Addr{"a.example.": many[:2], "many.example.": many, "closed.example.": {netip.MustParseAddr("10.1.1.1")}}}
	s, records := server(t, api.NetworkPolicy{}, z)
	tests := []struct {
		name    string
		kind    dnsmessage.Type
		code    dnsmessage.RCode
		answers int
		asked   string
	}{
		{"a.example.", dnsmessage.TypeA, 0, 2, "a.example."},
		{"A.EXAMPLE.", dnsmessage.TypeA, 0, 2, "a.example."},
		{"a.example.", dnsmessage.TypeAAAA, 0, 0, ""},
		{"a.example.", 65, 0, 0, ""},
		{"a.example.", dnsmessage.TypeNS, 0, 0, ""},
		{"a.example.", dnsmessage.TypeALL, 0, 0, ""},
		{"a.example.", dnsmessage.TypeTXT, 0, 2, "a.example."},
		{"_dmarc.a.example.", dnsmessage.TypeTXT, 0, 2, "_dmarc.a.example."},
		{"a.example.", dnsmessage.TypeMX, 0, 1, "a.example."},
		{"_sip._tcp.a.example.", dnsmessage.TypeSRV, 0, 1, "_sip._tcp.a.example."},
		{"closed.example.", dnsmessage.TypeA, 0, 0, "closed.example."},
		{"gone.example.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0, "gone.example."},
		{"1.100.51.198.in-addr.arpa.", dnsmessage.TypePTR, 0, 1, "198.51.100.1"},
		{"1.0.0.10.in-addr.arpa.", dnsmessage.TypePTR, dnsmessage.RCodeNameError, 0, ""},
		{"001.0.0.198.in-addr.arpa.", dnsmessage.TypePTR, dnsmessage.RCodeNameError, 0, ""},
		{"1.0.0.ip6.arpa.", dnsmessage.TypePTR, dnsmessage.RCodeNameError, 0, ""},
		{"127.0.0.1.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0, ""},
		{"host.smolvm.internal.", dnsmessage.TypeA, dnsmessage.RCodeNameError, 0, ""},
		{"many.example.", dnsmessage.TypeA, 0, 24, "many.example."},
	}
	for _, tt := range tests {
		t.Run(tt.name+tt.kind.String(), func(t *testing.T) {
			z.asked = nil
			m := ask(t, s, message(t, tt.name, tt.kind, func(m *dnsmessage.Message) {
				var h dnsmessage.ResourceHeader
				_ = h.SetEDNS0(4096, 0, false)
				m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
			}))
			if m.RCode != tt.code || len(m.Answers) != tt.answers || m.Questions[0].Name.String() != tt.name {
				t.Errorf("%v", m)
			}
			if got := strings.Join(z.asked, ","); got != tt.asked {
				t.Errorf("the resolver was asked for %q, want %q", got, tt.asked)
			}
		})
	}
	if len(*records) != len(tests) {
		t.Errorf("%d records of %d questions", len(*records), len(tests))
	}
	// Without EDNS what does not fit is cut off, and said to be.
	if m := ask(t, s, message(t, "a.example.", dnsmessage.TypeTXT, nil)); m.Truncated {
		t.Errorf("%v", m)
	}
	z.addrs["many.example."] = append(many, many...)
	z.err = nil
	b := s.Answer(t.Context(), message(t, "many.example.", dnsmessage.TypeA, nil), false, false)
	if len(b) > minUDP {
		t.Errorf("%d bytes for a client that takes %d", len(b), minUDP)
	}
	z.addrs, z.err = nil, &net.DNSError{IsTimeout: true}
	if m := ask(t, s, message(t, "a.example.", dnsmessage.TypeA, nil)); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("a resolver that is down: %v", m)
	}
}

// TestAllow: nothing is asked of anybody.
func TestAllow(t *testing.T) {
	z := &zone{}
	s, _ := server(t, api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{
		{Action: api.RuleAllow, Host: "*.a.example"}, {Action: api.RuleAllow, Host: network.HostName, Ports: []string{"1"}},
	}}, z)
	first := ask(t, s, message(t, "x.a.example.", dnsmessage.TypeA, nil))
	if len(first.Answers) != 1 {
		t.Fatalf("%v", first)
	}
	a := first.Answers[0].Body.(*dnsmessage.AResource).A
	if again := ask(t, s, message(t, "X.A.example.", dnsmessage.TypeA, nil)); again.Answers[0].Body.(*dnsmessage.AResource).A != a {
		t.Errorf("it has another address: %v", again)
	}
	if m := ask(t, s, message(t, network.HostName+".", dnsmessage.TypeA, nil)); len(m.Answers) != 1 {
		t.Errorf("%v", m)
	}
	back := ask(t, s, message(t, netip.AddrFrom4([4]byte{a[3], a[2], a[1], a[0]}).String()+".in-addr.arpa.", dnsmessage.TypePTR, nil))
	if len(back.Answers) != 1 || back.Answers[0].Body.(*dnsmessage.PTRResource).PTR.String() != "x.a.example." {
		t.Errorf("%v", back)
	}
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeTXT, dnsmessage.TypeAAAA, dnsmessage.TypeMX} {
		if m := ask(t, s, message(t, "secret.b.example.", kind, nil)); m.RCode != dnsmessage.RCodeNameError {
			t.Errorf("%v", m)
		}
		if m := ask(t, s, message(t, "secret.a.example.", kind, nil)); m.RCode != 0 {
			t.Errorf("%v", m)
		}
	}
	if len(z.asked) > 0 {
		t.Errorf("the resolver was asked for %v", z.asked)
	}
}

// TestByName: where names are to be dialled by name, nobody resolves them here.
func TestByName(t *testing.T) {
	z := &zone{}
	s, _ := server(t, api.NetworkPolicy{}, z)
	s.o.ByName = true
	m := ask(t, s, message(t, "far.example.", dnsmessage.TypeA, nil))
	if len(m.Answers) != 1 || len(z.asked) > 0 {
		t.Errorf("%v after asking for %v", m, z.asked)
	}
	if m := ask(t, s, message(t, network.HostName+".", dnsmessage.TypeA, nil)); m.RCode != dnsmessage.RCodeNameError {
		t.Errorf("%v", m)
	}
}

// TestOdd: what is no good question gets an answer that says so.
func TestOdd(t *testing.T) {
	s, _ := server(t, api.NetworkPolicy{}, &zone{})
	for name, tt := range map[string]struct {
		change func(*dnsmessage.Message)
		code   dnsmessage.RCode
	}{
		"opcode":        {func(m *dnsmessage.Message) { m.OpCode = 5 }, dnsmessage.RCodeNotImplemented},
		"class":         {func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }, dnsmessage.RCodeRefused},
		"no question":   {func(m *dnsmessage.Message) { m.Questions = nil }, dnsmessage.RCodeFormatError},
		"two questions": {func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }, dnsmessage.RCodeFormatError},
	} {
		if m := ask(t, s, message(t, "a.example.", dnsmessage.TypeA, tt.change)); m.RCode != tt.code {
			t.Errorf("%s: %v", name, m)
		}
	}
	response := message(t, "a.example.", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.Response = true })
	for _, b := range [][]byte{nil, response[:11], response} {
		if a := s.Answer(t.Context(), b, false, false); a != nil {
			t.Errorf("%x is answered with %x", b, a)
		}
	}
	var m dnsmessage.Message
	if err := m.Unpack(s.Answer(t.Context(), message(t, "a.example.", dnsmessage.TypeA, nil), false, true)); err != nil || m.RCode != dnsmessage.RCodeRefused {
		t.Errorf("too many: %v, %v", m, err)
	}
}

// FuzzAnswer: any bytes get an answer that can be read, or none.
func FuzzAnswer(f *testing.F) {
	f.Add(message(f, "a.example.", dnsmessage.TypeA, nil), false)
	f.Add(message(f, "_x._y.a.example.", dnsmessage.TypeSRV, nil), true)
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"), false)
	s, _ := server(f, api.NetworkPolicy{}, &zone{addrs: map[string][]netip.Addr{"a.example.": {netip.MustParseAddr("198.51.100.1")}}})
	f.Fuzz(func(t *testing.T, b []byte, tcp bool) {
		a := s.Answer(t.Context(), b, tcp, false)
		if a == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(a); err != nil || !m.Response {
			t.Errorf("%x is answered with %x: %v", b, a, err)
		}
		if !tcp && len(a) > maxUDP {
			t.Errorf("%d bytes", len(a))
		}
	})
}
