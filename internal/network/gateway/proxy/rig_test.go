package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/authority"
	"github.com/smolvm/smolvm/internal/network/gateway/dial"
	"github.com/smolvm/smolvm/internal/network/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a proxy between a guest's clients and an origin, each side with an authority of its own.
type rig struct {
	testing.TB
	proxy   *Proxy
	origin  *httptest.Server
	issuer  *authority.Issuer // of the origin
	policy  atomic.Pointer[network.Policy]
	secrets atomic.Pointer[secret.Set]
	trusted *x509.CertPool // by the guest
	roots   *x509.CertPool // by the host
	front   net.Listener
	flow    network.Flow

	mu       sync.Mutex
	records  []api.NetRecord
	sessions map[*Session]struct{}
	dialled  int
}

func newIssuer(t testing.TB) (*authority.Issuer, *x509.CertPool) {
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

const site = "site.example"

// newRig starts an origin that handles requests for site, behind a proxy under rules.
func newRig(t testing.TB, handler http.HandlerFunc, rules ...string) *rig {
	t.Helper()
	r := &rig{TB: t, flow: network.Flow{Name: site, Port: 443}, sessions: map[*Session]struct{}{}}
	var roots *x509.CertPool
	r.issuer, roots = newIssuer(t)
	r.roots = roots
	leaf, err := r.issuer.Leaf(site)
	if err != nil {
		t.Fatal(err)
	}
	r.origin = httptest.NewUnstartedServer(handler)
	r.origin.EnableHTTP2 = true
	r.origin.TLS = &tls.Config{Certificates: []tls.Certificate{*leaf}, MinVersion: tls.VersionTLS12}
	r.origin.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	r.origin.StartTLS()
	t.Cleanup(r.origin.Close)
	r.set(rules...)
	own, trusted := newIssuer(t)
	r.trusted = trusted
	r.proxy = New(Options{
		Policy: r.policy.Load, Secrets: r.secrets.Load, Issuer: own, Roots: roots, Log: slog.New(slog.DiscardHandler), Handshake: 2 * time.Second, Gather: 5 * time.Second,
		Dial: func(ctx context.Context, f network.Flow) (*dial.Conn, error) {
			r.mu.Lock()
			r.dialled++
			r.mu.Unlock()
			if f.Name != site {
				t.Errorf("it dials %+v", f)
			}
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.origin.Listener.Addr().String())
			if err != nil {
				return nil, err
			}
			return &dial.Conn{Conn: c, Addr: netip.MustParseAddr("198.51.100.1")}, nil
		},
		Record: func(n api.NetRecord) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.records = append(r.records, n)
		},
	})
	r.serve()
	return r
}

func rule(t testing.TB, text string) api.NetworkRule {
	t.Helper()
	rule, err := api.ParseRule(api.RuleAllow, text)
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

// set puts rules in force; none allows the whole site.
func (r *rig) set(rules ...string) {
	r.Helper()
	p := api.NetworkPolicy{Mode: api.NetAllow}
	if len(rules) == 0 {
		rules = []string{site}
	}
	for _, text := range rules {
		p.Rules = append(p.Rules, rule(r.TB, text))
	}
	r.compile(p)
}

func (r *rig) compile(p api.NetworkPolicy) {
	r.Helper()
	c, err := network.Compile(p, network.Options{SecretHosts: r.secrets.Load().Hosts()})
	if err != nil {
		r.Fatal(err)
	}
	r.policy.Store(c)
	if r.proxy == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.sessions {
		s.Reconsider()
	}
}

// port has connections from now on lead to another port.
func (r *rig) port(n uint16) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flow.Port = n
}

// serve has connections to front looked into.
func (r *rig) serve() {
	l, err := (&net.ListenConfig{}).Listen(r.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	r.front = l
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(r.Context())
	r.Cleanup(func() { cancel(); _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				r.mu.Lock()
				f := r.flow
				r.mu.Unlock()
				s, err := r.proxy.Open(f)
				if err != nil {
					r.Error(err)
					return
				}
				defer s.Close()
				r.mu.Lock()
				r.sessions[s] = struct{}{}
				r.mu.Unlock()
				if err := s.Serve(ctx, c); err != nil {
					r.Log(err)
				}
				r.mu.Lock()
				delete(r.sessions, s)
				r.mu.Unlock()
			})
		}
	})
}

// client is a guest's, that speaks HTTP/2 or 1.1.
func (r *rig) client(h2 bool) *http.Client { return r.clientOf(h2, r.trusted, r.front) }

// direct is the same without a proxy.
func (r *rig) direct(h2 bool) *http.Client { return r.clientOf(h2, r.roots, r.origin.Listener) }

func (r *rig) clientOf(h2 bool, roots *x509.CertPool, to net.Listener) *http.Client {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	t := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, Protocols: protocols, DisableCompression: true,
		ExpectContinueTimeout: 2 * time.Second,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", to.Addr().String())
		},
	}
	r.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

type reply struct {
	status  int
	body    string
	header  http.Header
	trailer http.Header
}

func (r *rig) do(c *http.Client, method, target string, body io.Reader, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(r.Context(), method, target, body)
	if err != nil {
		return reply{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, string(b), res.Header, res.Trailer}, err
}

func (r *rig) get(c *http.Client, target string, headers ...string) reply {
	r.Helper()
	got, err := r.do(c, http.MethodGet, target, nil, headers...)
	if err != nil {
		r.Fatalf("%s: %v", target, err)
	}
	return got
}

// found waits for a record.
func (r *rig) found(what string, is func(api.NetRecord) bool) api.NetRecord {
	r.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		r.mu.Lock()
		for _, n := range slices.Backward(r.records) {
			if is(n) {
				defer r.mu.Unlock()
				return n
			}
		}
		r.mu.Unlock()
	}
	r.Fatalf("no record of %s in %+v", what, r.records)
	return api.NetRecord{}
}

// raw sends bytes on a TLS connection of HTTP/1.1 and returns what comes until the other side ends it.
func (r *rig) raw(sni, text string) string {
	r.Helper()
	c, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", r.front.Addr().String())
	if err != nil {
		r.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	t := tls.Client(c, &tls.Config{ServerName: sni, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}) //nolint:gosec // a client that does not look
	_ = t.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(t, text); err != nil {
		return err.Error()
	}
	b, _ := io.ReadAll(t)
	return string(b)
}

// statuses are those in a raw answer.
func statuses(answer string) string {
	var all []string
	for _, part := range strings.Split(answer, "HTTP/1.1 ")[1:] {
		if len(part) > 3 && part[3] == ' ' {
			all = append(all, part[:3])
		}
	}
	return strings.Join(all, " ")
}

func echoRequest(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Proto", r.Proto)
	b, _ := io.ReadAll(r.Body)
	_, _ = fmt.Fprintf(w, "%s %s %s %d", r.Method, r.Host, r.RequestURI, len(b))
}
