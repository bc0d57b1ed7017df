// Package looked measures what it costs that the gateway looks into connections: a kernel in a namespace stands for the guest
// and reaches one server by two names, of which one's connections are looked into and the other's are passed on as they are.
//
// Layer: part of bench. It may import bench/figure, bench/peer, network/authority, api, errdefs.
package looked

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/figure"
	"github.com/smolvm/smolvm/internal/bench/peer"
	"github.com/smolvm/smolvm/internal/network/authority"
	"github.com/smolvm/smolvm/internal/sys/cacert"
)

// The server's names.
const (
	into = "into.bench.test" // is looked into
	past = "past.bench.test" // is passed on
)

const (
	download = 256 << 20
	upload   = 1 << 30
	fresh    = 60   // new connections of each kind in a round
	onOne    = 1000 // requests on one connection
	streams  = 40   // streams of events of each kind in a round
)

// goals of the five figures, in the order of their names.
func goals() []struct {
	name, unit string
	goal       figure.Goal
} {
	return []struct {
		name, unit string
		goal       figure.Goal
	}{
		{"download, looked into / passed on", "ratio", figure.AtLeast(0.4)},
		{"new HTTPS request, looked into / passed on", "ratio", figure.AtMost(2)},
		{"1,000 requests on one HTTP/2 connection, looked into / passed on", "ratio", figure.AtMost(1.6)},
		{"first event of a stream, looked into / passed on", "ratio", figure.AtMost(1.5)},
		{"gateway over idle during an upload of 1 GiB, Private_Dirty", "MiB", figure.AtMost(32)},
	}
}

// Run measures runs rounds.
func Run(ctx context.Context, tempDir string, runs int, tell func(stage, format string, args ...any), log *slog.Logger) ([]api.Figure, error) {
	why := ""
	if _, err := exec.LookPath("ip"); err != nil {
		why = "ip is not installed (Debian's iproute2)"
	}
	if os.Geteuid() != 0 {
		why = "needs root, for a TAP and a network namespace"
	}
	at, err := ownAddr()
	if err != nil {
		why = err.Error()
	}
	if why != "" {
		var figures []api.Figure
		for _, g := range goals() {
			figures = append(figures, figure.Skipped(g.name, g.unit, g.goal, why))
		}
		return figures, nil
	}
	dir, err := os.MkdirTemp(tempDir, "smolvm-bench-")
	if err != nil {
		return nil, errdefs.Host.Errorf("a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	o, err := startOrigin(ctx, dir, at)
	if err != nil {
		return nil, err
	}
	defer o.close()
	var r rounds
	for i := range runs {
		tell("proxy", "round %d", i+1)
		if err := o.round(ctx, dir, &r, log); err != nil {
			return nil, err
		}
	}
	return r.figures(), nil
}

// rounds are what was measured in turn.
type rounds struct {
	down, fresh, many, event figure.Pairs
	memory                   []float64
}

func (r *rounds) figures() []api.Figure {
	g := goals()
	figures := r.down.Figures(g[0].name, g[0].goal, "download, looked into", "download, passed on", "MiB/s")
	figures = append(figures, r.fresh.Figures(g[1].name, g[1].goal, "new HTTPS request, looked into", "new HTTPS request, passed on", "ms")...)
	figures = append(figures, r.many.Figures(g[2].name, g[2].goal, "1,000 requests, looked into", "1,000 requests, passed on", "ms")...)
	figures = append(figures, r.event.Figures(g[3].name, g[3].goal, "first event, looked into", "first event, passed on", "ms")...)
	return append(figures, figure.New(g[4].name, g[4].unit, g[4].goal, r.memory))
}

// ownAddr is an address of this host's that is not its loopback: names may lead there, once a rule opens it.
func ownAddr() (netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, errdefs.Host.Errorf("this host's addresses: %w", err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, errdefs.Host.Errorf("this host has no IPv4 address but its loopback")
}

// origin is the server, and the name server that knows it.
type origin struct {
	at     netip.AddrPort
	roots  *x509.CertPool
	server *http.Server
	names  net.PacketConn
	env    map[string]string // what SSL_CERT_FILE and SSL_CERT_DIR were
}

func startOrigin(ctx context.Context, dir string, at netip.Addr) (_ *origin, err error) {
	cert, key, err := authority.New()
	if err != nil {
		return nil, errdefs.Internal.Errorf("%w", err)
	}
	issuer, err := authority.Load(cert, key)
	if err != nil {
		return nil, errdefs.Internal.Errorf("%w", err)
	}
	o := &origin{roots: x509.NewCertPool(), env: map[string]string{}}
	root, err := x509.ParseCertificate(cert)
	if err != nil {
		return nil, errdefs.Internal.Errorf("%w", err)
	}
	o.roots.AddCert(root)
	file := filepath.Join(dir, "root.pem")
	if err := os.WriteFile(file, []byte(cacert.PEM(cert)), 0o600); err != nil {
		return nil, errdefs.Host.Errorf("the server's authority: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		return nil, errdefs.Host.Errorf("a listener: %w", err)
	}
	if o.names, err = (&net.ListenConfig{}).ListenPacket(ctx, "udp4", "127.0.0.1:0"); err != nil {
		_ = l.Close()
		return nil, errdefs.Host.Errorf("a name server: %w", err)
	}
	o.at = netip.MustParseAddrPort(l.Addr().String())
	// The gateway trusts whom its host does.
	for name, value := range map[string]string{"SSL_CERT_FILE": file, "SSL_CERT_DIR": dir} {
		o.env[name] = os.Getenv(name)
		_ = os.Setenv(name, value) // names without = or NUL are taken
	}
	o.server = &http.Server{
		Handler: http.HandlerFunc(serve), ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return issuer.Leaf(h.ServerName)
		}},
	}
	go func() { _ = o.server.ServeTLS(l, "", "") }()
	go o.answer()
	return o, nil
}

func (o *origin) close() {
	_ = o.server.Close()
	_ = o.names.Close()
	for name, value := range o.env {
		if value == "" {
			_ = os.Unsetenv(name)
		} else {
			_ = os.Setenv(name, value)
		}
	}
}

// serve is the server.
func serve(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/down":
		w.Header().Set("Content-Length", strconv.Itoa(download))
		b := make([]byte, 1<<20)
		for range download / len(b) {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	case "/up":
		n, err := discard(r.Body)
		_, _ = fmt.Fprint(w, n, err)
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte("data: first\n\n"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	default:
		_, _ = w.Write([]byte("hello"))
	}
}

// answer tells everybody that every name is here.
func (o *origin) answer() {
	b := make([]byte, 4096)
	for {
		n, from, err := o.names.ReadFrom(b)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}, Body: &dnsmessage.AResource{A: o.at.Addr().As4()},
			}}
		}
		if packed, err := m.Pack(); err == nil {
			_, _ = o.names.WriteTo(packed, from)
		}
	}
}

// policy lets the guest reach the server by both names.
func (o *origin) policy() api.NetworkPolicy {
	port := strconv.Itoa(int(o.at.Port()))
	return api.NetworkPolicy{Mode: api.NetAllow, DNS: []string{o.names.LocalAddr().String()}, Rules: []api.NetworkRule{
		{Action: api.RuleAllow, Host: into, Ports: []string{port}, Paths: []string{"/**"}},
		{Action: api.RuleAllow, Host: past, Ports: []string{port}},
		{Action: api.RuleAllow, CIDR: netip.PrefixFrom(o.at.Addr(), 32).String(), Ports: []string{port}},
	}}
}

// round measures everything once, behind a gateway of its own: the upload first, so that what it holds was idle before.
func (o *origin) round(ctx context.Context, dir string, r *rounds, log *slog.Logger) error {
	p, err := peer.Behind(ctx, dir, peer.Card{}, o.policy(), log)
	if err != nil {
		return err
	}
	defer p.Close()
	root, err := x509.ParseCertificate(p.Authority)
	if err != nil {
		return errdefs.Internal.Errorf("the gateway's authority: %w", err)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(root)
	ours, theirs := &guest{p: p, o: o, name: into, roots: trusted}, &guest{p: p, o: o, name: past, roots: o.roots}
	held, err := ours.upload(ctx)
	if err != nil {
		return err
	}
	r.memory = append(r.memory, held)
	for _, m := range []struct {
		to      *figure.Pairs
		measure func(context.Context, *guest, *guest) (a, b float64, err error)
	}{{&r.down, downloads}, {&r.fresh, newRequests}, {&r.many, manyRequests}, {&r.event, firstEvents}} {
		a, b, err := m.measure(ctx, ours, theirs)
		if err != nil {
			return err
		}
		m.to.Add(a, b)
	}
	return nil
}
