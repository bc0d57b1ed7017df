package gateway

import (
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/gateway/dial"
	"github.com/smolvm/smolvm/internal/network/gateway/hello"
	"github.com/smolvm/smolvm/internal/network/gateway/proxy"
	"github.com/smolvm/smolvm/internal/network/secret"
)

const (
	portHTTPS = 443

	// How long a guest may take to say for whom a connection is.
	helloLimit = time.Minute
)

// lookInto serves a connection whose requests are decided one by one. The guest's handshake is answered at once: whether
// anything is dialled depends on what it asks for.
func (g *Gateway) lookInto(f *flow, r *tcp.ForwarderRequest) {
	v := g.policy.Load().Flow(f.want)
	s, err := g.proxy.Open(f.want)
	if err != nil {
		r.Complete(true)
		g.limited.Add(1)
		g.finish(f, &dial.Denied{Verdict: network.Verdict{Rule: "limit", Reason: err.Error()}})
		return
	}
	defer s.Close()
	g.flows.lookInto(f, s)
	conn, ep, err := g.accept(r)
	if err != nil {
		g.finish(f, err)
		return
	}
	if !g.establish(f, netip.Addr{}, v, ep.Abort, func() int { return queued(f, ep) }) {
		ep.Abort()
		_ = conn.Close()
		g.finish(f, nil)
		return
	}
	err = s.Serve(f.ctx, &counted{toGuest{conn, f}})
	if drain(f.ctx, ep); f.ctx.Err() != nil {
		ep.Abort()
	}
	g.finish(f, err)
}

// counted is the guest's side of a connection that is looked into.
type counted struct{ toGuest }

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.f.touch()
	c.f.out.Add(int64(n))
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.toGuest.Write(b)
	c.f.touch()
	c.f.in.Add(int64(n))
	return n, err
}

// named lets the guest go on when it says in the open that it is here for the flow's name.
func named(f *flow, c net.Conn, v network.Verdict) (net.Conn, error) {
	c, err := hello.Expect(f.ctx, c, f.want.Name, helloLimit)
	if err != nil {
		return nil, &dial.Denied{Verdict: network.Verdict{Rule: v.Rule, Reason: err.Error()}}
	}
	return c, nil
}

// newProxy makes what looks into connections.
func (g *Gateway) newProxy(o proxy.Options) *proxy.Proxy {
	o.Policy, o.Secrets, o.Dial, o.Record, o.Log = g.policy.Load, g.secrets.Load, g.dialer.Dial, g.record, g.log
	o.Reserve = func(first bool) error {
		if !first && !g.newFlows.Load().Allow() || !g.flows.reserve() {
			g.limited.Add(1)
			return &dial.Denied{Verdict: network.Verdict{Rule: "limit", Reason: "too many connections at once"}}
		}
		return nil
	}
	o.Release = g.flows.release
	return proxy.New(o)
}

// SetSecrets puts secrets in force; nil: none. The policy must know their hosts.
func (g *Gateway) SetSecrets(s *secret.Set) { g.secrets.Store(s) }
