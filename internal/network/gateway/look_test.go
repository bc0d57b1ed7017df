package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/authority"
	"github.com/smolvm/smolvm/internal/network/secret"
)

func issuer(t *testing.T) (*authority.Issuer, *x509.CertPool) {
	t.Helper()
	cert, key, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	i, err := authority.Load(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return i, pool
}

// looking is a world with HTTPS outside.
type looking struct {
	*world
	trusted *x509.CertPool // by the guest: the gateway's
	outer   *x509.CertPool // by the host: the outside's
	issuer  *authority.Issuer
}

func allowing(t *testing.T, texts ...string) api.NetworkPolicy {
	t.Helper()
	p := api.NetworkPolicy{Mode: api.NetAllow}
	for _, text := range texts {
		r, err := api.ParseRule(api.RuleAllow, text)
		if err != nil {
			t.Fatal(err)
		}
		p.Rules = append(p.Rules, r)
	}
	return p
}

func newLooking(t *testing.T, p api.NetworkPolicy) *looking {
	t.Helper()
	l := &looking{}
	own, trusted := issuer(t)
	l.trusted = trusted
	l.issuer, l.outer = issuer(t)
	l.world = newWorld(t, p, func(o *Options) { o.HTTP.Issuer, o.HTTP.Roots = own, l.outer })
	return l
}

// site serves HTTPS for a name at an address outside.
func (l *looking) site(name, at string, handler http.HandlerFunc) {
	l.t.Helper()
	leaf, err := l.issuer.Leaf(name)
	if err != nil {
		l.t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{*leaf}, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	l.t.Cleanup(s.Close)
	a := netip.MustParseAddrPort(at)
	l.outside.has(name+".", a.Addr().String())
	l.outside.leads(at, s.Listener.Addr().String())
}

// addr is what the guest is told for a name.
func (l *looking) addr(name string) string {
	l.t.Helper()
	m := l.ask(name+".", dnsmessage.TypeA)
	if len(m.Answers) != 1 {
		l.t.Fatalf("%s: %v", name, m)
	}
	return netip.AddrFrom4(m.Answers[0].Body.(*dnsmessage.AResource).A).String()
}

// client is the guest's, for HTTP/2 or 1.1.
func (l *looking) client(h2 bool, roots *x509.CertPool) *http.Client {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	t := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, Protocols: protocols,
		DialContext: func(_ context.Context, _, at string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(at)
			if err != nil {
				return nil, err
			}
			var c *gonet.TCPConn
			if c, err = l.dial(l.addr(host) + ":" + port); err != nil {
				return nil, err
			}
			return c, nil
		},
	}
	l.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second}
}

func (l *looking) get(c *http.Client, url string, headers ...string) (status int, body string) {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}

// TestLook: requests of a connection by name are decided one by one, both the connection and each of them are recorded, and
// what the connection counts is what the guest sent and got.
func TestLook(t *testing.T) {
	l := newLooking(t, allowing(t, "a.example=GET:/ok/**"))
	l.site("a.example", "198.51.100.1:443", func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Proto, r.URL.Path) })
	for _, h2 := range []bool{false, true} {
		c := l.client(h2, l.trusted)
		if status, body := l.get(c, "https://a.example/ok/1"); status != 200 || body != map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]+"/ok/1" {
			t.Errorf("%d %s", status, body)
		}
		if status, body := l.get(c, "https://a.example/no"); status != 403 || !strings.Contains(body, "--allow a.example=GET:/no") {
			t.Errorf("%d %s", status, body)
		}
		c.CloseIdleConnections()
		r := l.found("the connection", func(r api.NetRecord) bool { return r.Kind == "tcp" })
		if r.Verdict != "allow" || r.Name != "a.example" || r.Addr != "198.51.100.1" || r.BytesIn < 500 || r.BytesOut < 300 || r.Reason != "" {
			t.Errorf("%+v", r)
		}
		if r := l.found("the request", func(r api.NetRecord) bool { return r.Kind == "http" && r.Status == 200 }); r.Path != "/ok/1" {
			t.Errorf("%+v", r)
		}
		l.forget()
	}
	if s := l.gateway.Stats(); s.Refused != 0 || s.Flows != 2 {
		t.Errorf("%+v", s)
	}
	until(t, "nothing is left", func() bool {
		l.gateway.flows.mu.Lock()
		defer l.gateway.flows.mu.Unlock()
		return len(l.gateway.flows.flows) == 0 && l.gateway.flows.looked == 0 && l.gateway.flows.upstream == 0
	})
	// Who does not trust the gateway gets nothing, and the record says so.
	if status, body := l.get(l.client(true, l.outer), "https://a.example/ok/1"); status != 0 || !strings.Contains(body, "certificate") {
		t.Errorf("%d %s", status, body)
	}
	l.found("its failure", func(r api.NetRecord) bool { return r.Kind == "tcp" && strings.Contains(r.Reason, "TLS with the guest") })
}

func (w *world) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records = nil
}

// TestOpaque: such a connection is passed on as it is, when it says in the open that it is for the name.
func TestOpaque(t *testing.T) {
	l := newLooking(t, allowing(t, "a.example=opaque"))
	l.site("a.example", "198.51.100.1:443", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "through") })
	if status, body := l.get(l.client(true, l.outer), "https://a.example/"); status != 200 || body != "through" {
		t.Errorf("%d %s", status, body)
	}
	at := l.addr("a.example") + ":443"
	_, key, err := authority.New() // something that is no ECH configuration
	if err != nil {
		t.Fatal(err)
	}
	for what, hello := range map[string]func(net.Conn) error{
		"another name": func(c net.Conn) error {
			return tls.Client(c, &tls.Config{ServerName: "b.example", InsecureSkipVerify: true}).HandshakeContext(t.Context()) //nolint:gosec // nobody looks
		},
		"no name": func(c net.Conn) error {
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(t.Context()) //nolint:gosec // nobody looks
		},
		"no TLS": func(c net.Conn) error {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
			_, err := c.Read(key)
			return err
		},
		"hidden": func(c net.Conn) error {
			_, _ = c.Write(greased(t))
			_, err := c.Read(key)
			return err
		},
	} {
		l.forget()
		c := l.mustDial(at)
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if err := hello(c); err == nil {
			t.Errorf("%s: let through", what)
		}
		r := l.found(what, func(r api.NetRecord) bool { return r.Kind == "tcp" })
		if r.Verdict != "deny" || r.Reason == "" {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

// greased is a hello for a.example with the extension encrypted_client_hello.
func greased(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	c := &sink{w: &b}
	_ = tls.Client(c, &tls.Config{ServerName: "a.example", MinVersion: tls.VersionTLS13}).HandshakeContext(t.Context())
	record := b.Bytes()
	extension := []byte{0xfe, 0x0d, 0, 4, 0, 1, 2, 3}
	// The lengths of the record, the message, and the extensions, which are its last part.
	add := func(at, size int) {
		n := 0
		for i := range size {
			n = n<<8 | int(record[at+i])
		}
		for n, i := n+len(extension), size-1; i >= 0; i-- {
			record[at+i] = byte(n)
			n >>= 8
		}
	}
	at := 5 + 4 + 2 + 32
	at += 1 + int(record[at])                          // session
	at += 2 + (int(record[at])<<8 | int(record[at+1])) // cipher suites
	at += 1 + int(record[at])                          // compression
	add(3, 2)
	add(6, 3)
	add(at, 2)
	return append(record, extension...)
}

// sink takes what is written and has nothing to read.
type sink struct {
	net.Conn
	w io.Writer
}

func (s *sink) Write(b []byte) (int, error) { return s.w.Write(b) }
func (s *sink) Read([]byte) (int, error)    { return 0, io.EOF }
func (s *sink) Close() error                { return nil }
func (s *sink) SetDeadline(time.Time) error { return nil }

// TestLookChange: a policy that wants connections served in another way ends those that are open.
func TestLookChange(t *testing.T) {
	for _, tt := range []struct{ name, from, to string }{
		{"looked into, then closed", "a.example=GET:/**", "a.example=opaque"},
		{"closed, then looked into", "a.example=opaque", "a.example"},
	} {
		l := newLooking(t, allowing(t, tt.from))
		l.site("a.example", "198.51.100.1:443", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
		roots := l.trusted
		if strings.HasSuffix(tt.from, "opaque") {
			roots = l.outer
		}
		c := tls.Client(l.mustDial(l.addr("a.example")+":443"), &tls.Config{RootCAs: roots, ServerName: "a.example", MinVersion: tls.VersionTLS12})
		if err := c.HandshakeContext(t.Context()); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		l.gateway.SetPolicy(compile(t, allowing(t, tt.to)), testLimits())
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v", tt.name, err)
		}
		l.found(tt.name, func(r api.NetRecord) bool { return r.Reason == "the policy has changed" })
	}
}

// TestLookSecrets: in mode open, names to which a secret goes have addresses of ours, so that their connections are looked into.
func TestLookSecrets(t *testing.T) {
	l := newLooking(t, open())
	l.site("api.example", "198.51.100.1:443", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer the-value-itself" {
			_, _ = io.WriteString(w, "known")
		}
	})
	one := secret.Secret{Name: "TOKEN", Placeholder: secret.Placeholder("", 20), Value: "the-value-itself", Hosts: []string{"api.example"}}
	set, err := secret.New([]secret.Secret{one})
	if err != nil {
		t.Fatal(err)
	}
	if got := l.addr("api.example"); got != "198.51.100.1" {
		t.Errorf("without secrets it is %s", got)
	}
	l.gateway.SetSecrets(set)
	l.gateway.SetPolicy(compileSecrets(t, open(), set), testLimits())
	if got := l.addr("api.example"); !strings.HasPrefix(got, "198.18.") {
		t.Errorf("with a secret it is %s", got)
	}
	if status, body := l.get(l.client(true, l.trusted), "https://api.example/", "Authorization", "Bearer "+one.Placeholder); status != 200 || body != "known" {
		t.Errorf("%d %q", status, body)
	}
}

func compileSecrets(t *testing.T, p api.NetworkPolicy, s *secret.Set) *network.Policy {
	t.Helper()
	c, err := network.Compile(p, network.Options{SecretHosts: s.Hosts()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
