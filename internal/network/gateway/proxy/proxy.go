// Package proxy looks into connections of a guest's that are HTTP: it ends their TLS with a certificate of the VM's own
// authority, asks the policy about each request, puts secrets in, and makes requests of its own to the real server, whose
// name, address and certificate it checks by what the policy knows, never by what the guest says.
//
// Layer: network, below gateway. It may import network, network/authority, network/secret, gateway/dial, api.
package proxy

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/authority"
	"github.com/smolvm/smolvm/internal/network/gateway/dial"
	"github.com/smolvm/smolvm/internal/network/secret"
)

// Options are what a Proxy works with.
type Options struct {
	// Policy is the policy that is in force, asked for each time; Secrets are the secrets, and may be nil.
	Policy  func() *network.Policy
	Secrets func() *secret.Set
	// Dial reaches the outside for a flow by its name.
	Dial func(context.Context, network.Flow) (*dial.Conn, error)
	// Reserve gives a connection to the outside its place; the error says why there is none. Release gives the place back.
	Reserve func(first bool) error
	Release func()

	Issuer *authority.Issuer
	Roots  *x509.CertPool // whom to trust outside; nil: the host's
	Record func(api.NetRecord)
	Log    *slog.Logger

	// Limits of time, for tests; 0: the default.
	Handshake, Idle, Gather time.Duration
}

// Limits.
const (
	// MaxSessions is how many connections are looked into at once. What each may hold is in window and below.
	MaxSessions = 1024

	// A guest's handshake and the head of a request must be there within this: an emulated guest on a busy machine takes its time.
	handshakeLimit = time.Minute
	// A connection on which no request is under way is closed after this.
	idleLimit = 2 * time.Minute

	maxHeader         = 64 << 10
	maxResponseHeader = 128 << 10
	// Requests under way on one connection of the guest's, and connections to the outside for them.
	maxStreams  = 100
	maxUpstream = 16
	// MaxHeld is about what all connections together may hold at the worst, when nobody reads: see windows.
	MaxHeld = 160 << 20

	copyBuffer = 32 << 10
	sessions   = 64 // of TLS, to be resumed outside
)

// Proxy is one gateway's.
type Proxy struct {
	o       Options
	buffers httputil.BufferPool
	resumed tls.ClientSessionCache
	tickets [32]byte // from which the keys of tickets are made

	count atomic.Int64
}

// New makes a Proxy.
func New(o Options) *Proxy {
	if o.Handshake == 0 {
		o.Handshake = handshakeLimit
	}
	if o.Idle == 0 {
		o.Idle = idleLimit
	}
	if o.Gather == 0 {
		o.Gather = gatherFor
	}
	if o.Reserve == nil {
		o.Reserve, o.Release = func(bool) error { return nil }, func() {}
	}
	p := &Proxy{o: o, buffers: &pool{}, resumed: tls.NewLRUClientSessionCache(sessions)}
	_, _ = rand.Read(p.tickets[:]) // never fails
	return p
}

// pool holds buffers to copy bodies with.
type pool struct{ p sync.Pool }

// Get implements httputil.BufferPool.
func (p *pool) Get() []byte {
	if b, ok := p.p.Get().(*[copyBuffer]byte); ok {
		return b[:]
	}
	return make([]byte, copyBuffer)
}

// Put implements httputil.BufferPool.
func (p *pool) Put(b []byte) { p.p.Put((*[copyBuffer]byte)(b)) }

// windows are how much HTTP/2 lets a side send ahead on one connection. The first connections get much, which makes them fast
// where the way is long; many get little, so that all together stay bounded: 8 × 5 MiB, 24 × 1.25, 96 × 0.5, the rest 0.125.
func windows(open int64) (guest, upstream int) {
	switch {
	case open <= 8:
		return 1 << 20, 4<<20 - 1
	case open <= 32:
		return 256 << 10, 1 << 20
	case open <= 128:
		return 256 << 10, 256 << 10
	default:
		return 64 << 10, 64 << 10
	}
}

// server is how we are a name to the guest.
func (p *Proxy) server(name string, sni *string) (*tls.Config, error) {
	leaf, err := p.o.Issuer.Leaf(name)
	if err != nil {
		return nil, err
	}
	// A session that began as one name is resumed as that name only.
	key, err := hkdf.Key(sha256.New, p.tickets[:], nil, name, 32)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{*leaf}, DynamicRecordSizingDisabled: true,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			*sni = h.ServerName
			return nil, nil //nolint:nilnil // crypto/tls's own convention: this very configuration
		},
	}
	c.SetSessionTicketKeys([][32]byte{[32]byte(key)})
	return c, nil
}

// client is how we meet the real server.
func (p *Proxy) client(name string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name, RootCAs: p.o.Roots, ClientSessionCache: p.resumed, DynamicRecordSizingDisabled: true}
}

// errTooMany is why a connection is not looked into, and so not let through.
var errTooMany = errors.New("too many connections are looked into")
