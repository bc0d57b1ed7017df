// Package gateway is the other end of a guest's network card: a TCP/IP stack in a process of its own that ends every flow of
// the guest's and begins another one to the outside where the policy allows it. Nothing is routed, and nothing passes but
// the content of flows. The stack is gVisor's, and is imported here only.
//
// Layer: network, a program of its own below the supervisor, which reaches it through network/control only. It may import
// network and what is below it, api, errdefs, internal/sys.
package gateway

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/gateway/dial"
	"github.com/smolvm/smolvm/internal/network/gateway/dns"
	"github.com/smolvm/smolvm/internal/network/gateway/frame"
	"github.com/smolvm/smolvm/internal/network/gateway/proxy"
	"github.com/smolvm/smolvm/internal/network/gateway/questions"
	"github.com/smolvm/smolvm/internal/network/gateway/seen"
	"github.com/smolvm/smolvm/internal/network/gateway/wire"
	"github.com/smolvm/smolvm/internal/network/secret"
)

// Dialer reaches the outside.
type Dialer interface {
	Dial(ctx context.Context, f network.Flow) (*dial.Conn, error)
}

// Options are what a gateway works with.
type Options struct {
	Wire   wire.Wire
	Link   frame.Link
	MTU    uint32
	Policy *network.Policy
	Limits Limits
	Names  *network.Synthetic
	// Dialer and Resolver reach the outside; nil: as the policy and the host say.
	Dialer   Dialer
	Resolver dns.Resolver
	Proxy    *dial.Proxy
	// DNS are the resolvers to ask where the policy names none; none means the host's.
	DNS []netip.AddrPort
	// Record takes the audit's records and must not wait.
	Record func(api.NetRecord)
	Log    *slog.Logger
	// IdleTCP and IdleUDP are how long nothing may move on a flow, 0 = 1 h and 60 s.
	IdleTCP, IdleUDP time.Duration
	// HTTP looks into connections: its Issuer and Roots must be given, the gateway gives the rest.
	HTTP    proxy.Options
	Secrets *secret.Set
}

// Limits bound what a guest may use.
type Limits struct {
	Conns     int // open at once
	NewPerSec int // new flows
	DNSPerSec int // questions
	Rate      int // bytes per second, each way; 0 = no limit
}

// Gateway is one guest's.
type Gateway struct {
	opts   Options
	log    *slog.Logger
	link   *link
	stack  *stack.Stack
	dns    *dns.Server
	names  *questions.Server
	dialer Dialer
	proxy  *proxy.Proxy
	flows  *table
	seen   *seen.Names

	policy    atomic.Pointer[network.Policy]
	secrets   atomic.Pointer[secret.Set]
	resolver  atomic.Pointer[dns.Resolver]
	newFlows  limiter
	questions limiter
	in, out   limiter // bytes
	maxQueued int

	refused, limited, asked atomic.Int64

	ctx  context.Context //nolint:containedctx // the gateway's life, for what packets start
	stop context.CancelFunc
	work sync.WaitGroup
}

const minByteRate = 1 << 10

// New makes a gateway. Run runs it.
func New(o Options) (*Gateway, error) {
	if o.IdleTCP == 0 {
		o.IdleTCP = time.Hour
	}
	if o.IdleUDP == 0 {
		o.IdleUDP = time.Minute
	}
	g := &Gateway{
		opts: o, log: o.Log, flows: newTable(), seen: seen.New(), maxQueued: MaxQueued,
	}
	g.ctx, g.stop = context.WithCancel(context.Background()) //nolint:forbidigo // ended by Run, which has the caller's
	g.link = newLink(o.Wire, o.Link, o.MTU)
	g.link.paceIn, g.link.paceOut = g.pace(&g.in), g.pace(&g.out)
	g.setPolicy(o.Policy, o.Limits)
	g.dialer = o.Dialer
	if g.dialer == nil {
		g.dialer = dial.New(dial.Options{Policy: g.policy.Load, Resolver: func() dial.Resolver { return *g.resolver.Load() }, Proxy: o.Proxy})
	}
	g.secrets.Store(o.Secrets)
	g.proxy = g.newProxy(o.HTTP)
	g.dns = dns.New(dns.Options{
		Policy: g.policy.Load, Names: o.Names, Resolver: func() dns.Resolver { return *g.resolver.Load() }, Record: g.record, Seen: g.seen.Add,
		ByName: o.Proxy != nil,
	})
	var err error
	if g.stack, err = newStack(g.link); err != nil {
		g.stop()
		return nil, err
	}
	g.names = questions.New(questions.Server{Stack: g.stack, NIC: nicID, Addr: o.Link.Gateway, Answer: g.answer, Refused: func() { g.limited.Add(1) }})
	g.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(g.stack, 0, maxInFlight, g.tcp).HandlePacket)
	g.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(g.stack, g.udp).HandlePacket)
	return g, nil
}

// Run works until the wire ends or ctx does, and leaves nothing behind.
func (g *Gateway) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, g.stop)()
	closeWire := context.AfterFunc(g.ctx, func() { _ = g.opts.Wire.Close() })
	defer closeWire()
	if err := g.names.Start(g.ctx, &g.work); err != nil {
		g.stop()
		g.end()
		return err
	}
	g.work.Go(func() { g.sweep(g.ctx) })
	err := g.link.read()
	if g.ctx.Err() != nil {
		err = nil
	}
	g.stop()
	g.end()
	return err
}

// end resets all flows and waits until nothing runs any more.
func (g *Gateway) end() {
	_ = g.opts.Wire.Close()
	for _, f := range g.flows.open() {
		f.abort("the gateway ends")
	}
	g.stack.Close()
	g.flows.wg.Wait()
	g.work.Wait()
	g.stack.Destroy()
}

// SetPolicy puts a policy in force: what it does not allow is ended when this returns.
func (g *Gateway) SetPolicy(p *network.Policy, l Limits) {
	g.setPolicy(p, l)
	for _, f := range g.flows.open() {
		if !f.allowed(p) {
			f.abort("the policy has changed")
		} else if s := f.session(); s != nil {
			s.Reconsider()
		}
	}
}

func (g *Gateway) setPolicy(p *network.Policy, l Limits) {
	r := g.opts.Resolver
	if r == nil {
		servers := p.Resolvers()
		if len(servers) == 0 {
			servers = g.opts.DNS
		}
		r = dns.NewResolver(servers)
	}
	g.resolver.Store(&r)
	g.policy.Store(p)
	g.flows.setMax(l.Conns)
	g.newFlows.set(rate.Limit(l.NewPerSec), l.NewPerSec)
	g.questions.set(rate.Limit(l.DNSPerSec), l.DNSPerSec)
	for _, b := range []*limiter{&g.in, &g.out} {
		if l.Rate <= 0 {
			b.set(rate.Inf, 0)
		} else {
			b.set(rate.Limit(max(l.Rate, minByteRate)), max(l.Rate/4, 2*g.link.longest()))
		}
	}
}

// limiter is a limit that can be changed. It begins full.
type limiter struct{ atomic.Pointer[rate.Limiter] }

func (l *limiter) set(perSec rate.Limit, burst int) {
	burst = max(burst, 1)
	if now := l.Load(); now == nil || now.Limit() != perSec || now.Burst() != burst {
		l.Store(rate.NewLimiter(perSec, burst))
	}
}

// pace makes what waits until so many bytes may pass.
func (g *Gateway) pace(l *limiter) func(int) {
	return func(n int) {
		if now := l.Load(); now.Limit() != rate.Inf {
			_ = now.WaitN(g.ctx, n)
		}
	}
}

func (g *Gateway) record(r api.NetRecord) {
	if g.opts.Record != nil {
		g.opts.Record(r)
	}
}

// Stats are the gateway's counters.
func (g *Gateway) Stats() control.Stats {
	open := g.flows.open()
	s := control.Stats{
		Open: len(open), Flows: g.flows.total.Load(), Refused: g.refused.Load(), Limited: g.limited.Load(), Questions: g.asked.Load(),
		BytesIn: g.flows.in.Load(), BytesOut: g.flows.out.Load(), Frames: map[string]int64{},
	}
	for _, f := range open {
		s.BytesIn += f.in.Load()
		s.BytesOut += f.out.Load()
	}
	for _, d := range frame.Drops() {
		if n := g.link.drops[d].Load(); n > 0 {
			s.Frames[d.String()] = n
		}
	}
	if n := g.link.lost.Load(); n > 0 {
		s.Frames["not delivered"] = n
	}
	if w := g.link.offload; w != nil {
		s.LargeOut, s.LargeIn = w.Segmented()
	}
	return s
}

// answer answers one question about a name. What is too much is refused without being looked at.
func (g *Gateway) answer(msg []byte, tcp, tooMany bool) []byte {
	if !tooMany {
		g.asked.Add(1)
		tooMany = !g.questions.Load().Allow()
	}
	if tooMany {
		g.limited.Add(1)
	}
	return g.dns.Answer(g.ctx, msg, tcp, tooMany)
}

// admit decides a new flow of the guest's and gives it its place; nil when it may not be.
func (g *Gateway) admit(proto network.Proto, dst netip.Addr, port uint16, idle time.Duration) *flow {
	want := network.Flow{Proto: proto, Port: port, Addr: dst}
	if name, ok := g.opts.Names.Name(dst); ok {
		want.Name, want.Addr = name, netip.Addr{}
	}
	if !g.newFlows.Load().Allow() {
		return g.refuse(want, &g.limited, network.Verdict{Rule: "limit", Reason: "too many new flows at once"})
	}
	if dst == g.opts.Link.Gateway {
		return g.refuse(want, &g.refused, network.Verdict{Rule: "link", Reason: "the gateway itself has no such service"})
	}
	// First its place, then the question: a policy that changes meanwhile finds it there.
	f := g.flows.add(g.ctx, want, idle)
	if f == nil {
		return g.refuse(want, &g.limited, network.Verdict{Rule: "limit", Reason: "too many flows are open"})
	}
	v := g.policy.Load().Flow(want)
	if f.kind.Store(kindOf(want, v)); !v.Allow {
		g.flows.remove(f)
		g.flows.total.Add(-1)
		return g.refuse(want, &g.refused, v)
	}
	return f
}

// refuse counts and records a flow that may not be.
func (g *Gateway) refuse(want network.Flow, count *atomic.Int64, v network.Verdict) *flow {
	count.Add(1)
	r := recordOf(want, time.Now())
	r.Rule, r.Reason = v.Rule, v.Reason
	if r.Name == "" {
		r.Name = g.seen.Name(want.Addr)
	}
	g.record(r)
	return nil
}

// finish gives a flow's place back and records how it was.
func (g *Gateway) finish(f *flow, err error) {
	why := context.Cause(f.ctx)
	g.flows.remove(f)
	r := f.record()
	if r.Name == "" {
		r.Name = g.seen.Name(f.want.Addr)
	}
	var reset errReset
	switch denied, ok := asDenied(err); {
	case ok:
		g.refused.Add(1)
		r.Verdict, r.Rule, r.Reason = "deny", denied.Verdict.Rule, denied.Verdict.Reason
	case asReset(why, &reset):
		r.Reason = string(reset)
	case err != nil:
		r.Reason = err.Error()
	}
	g.record(r)
}

func addrOf(a tcpip.Address) netip.Addr {
	n, _ := netip.AddrFromSlice(a.AsSlice())
	return n
}
