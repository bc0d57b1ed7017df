// Package dial reaches the outside for a guest's flow: it resolves the flow's name itself, asks the policy about each address
// and asks again about the very address that the socket is about to connect to.
//
// Layer: network, below gateway. It may import network, errdefs.
package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/smolvm/smolvm/internal/network"
)

// Resolver finds a name's addresses; *net.Resolver does.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options are what a Dialer works with.
type Options struct {
	// Policy is the policy that is in force, asked for each time.
	Policy   func() *network.Policy
	Resolver func() Resolver
	Proxy    *Proxy // nil: none
	// Timeout bounds one attempt to connect, 0 = 20 s.
	Timeout time.Duration
	// Loopback is where Verdict.Host leads, for tests; the zero value is 127.0.0.1.
	Loopback netip.Addr
}

// Dialer reaches the outside.
type Dialer struct{ opts Options }

// New makes a Dialer.
func New(o Options) *Dialer {
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	if !o.Loopback.IsValid() {
		o.Loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return &Dialer{opts: o}
}

// Denied is the policy's refusal at the time of dialling.
type Denied struct{ Verdict network.Verdict }

// Error implements error.
func (d *Denied) Error() string { return "refused by the policy: " + d.Verdict.Reason }

// maxAddrs is how many of a name's addresses are tried.
const maxAddrs = 8

// Conn is a connection to the outside, and where it really leads.
type Conn struct {
	net.Conn
	Addr    netip.Addr // zero when a proxy knows
	Verdict network.Verdict
}

// Dial connects for a flow: by its name where it has one, else to its address.
func (d *Dialer) Dial(ctx context.Context, f network.Flow) (*Conn, error) {
	v := d.opts.Policy().Flow(f)
	if !v.Allow {
		return nil, &Denied{v}
	}
	if v.Host {
		return d.host(ctx, f, v)
	}
	if p := d.proxy(f); p != nil {
		return d.throughProxy(ctx, f, v, p)
	}
	addrs, err := d.addrs(ctx, f)
	if err != nil {
		return nil, err
	}
	var last error
	for _, a := range addrs[:min(len(addrs), maxAddrs)] {
		g := f
		g.Addr = a
		c, err := d.one(ctx, g)
		if err == nil {
			return c, nil
		}
		// What the policy refuses says less than a connection that failed.
		var denied *Denied
		if last == nil || !errors.As(err, &denied) {
			last = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, last
}

// addrs are where a flow may lead, IPv4 first.
func (d *Dialer) addrs(ctx context.Context, f network.Flow) ([]netip.Addr, error) {
	if f.Name == "" {
		return []netip.Addr{f.Addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	found, err := d.opts.Resolver().LookupNetIP(ctx, "ip", f.Name+".")
	if err != nil {
		return nil, err
	}
	var v4, v6 []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	all := append(v4, v6...)
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no address", f.Name)
	}
	return all, nil
}

// one connects to one address.
func (d *Dialer) one(ctx context.Context, f network.Flow) (*Conn, error) {
	v := d.opts.Policy().Flow(f)
	if !v.Allow {
		return nil, &Denied{v}
	}
	if v.Host { // a name's address says nothing of the host's loopback
		return nil, &Denied{network.Verdict{Rule: v.Rule, Reason: "the host is reached by its name only"}}
	}
	c, err := d.connect(ctx, f, func(a netip.Addr) network.Verdict {
		g := f
		g.Addr = a
		return d.opts.Policy().Flow(g)
	})
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c, Addr: f.Addr, Verdict: v}, nil
}

// host connects to the host's loopback.
func (d *Dialer) host(ctx context.Context, f network.Flow, v network.Verdict) (*Conn, error) {
	f.Addr = d.opts.Loopback
	c, err := d.connect(ctx, f, func(a netip.Addr) network.Verdict {
		if a != d.opts.Loopback {
			return network.Verdict{Reason: "not the host's loopback"}
		}
		g := f
		g.Addr = netip.Addr{}
		return d.opts.Policy().Flow(g)
	})
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c, Addr: f.Addr, Verdict: v}, nil
}

// connect has check look at the address that the socket is about to connect to.
func (d *Dialer) connect(ctx context.Context, f network.Flow, check func(netip.Addr) network.Verdict) (net.Conn, error) {
	var denied *Denied
	nd := net.Dialer{
		Timeout: d.opts.Timeout,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("about to dial %q: %w", address, err)
			}
			if v := check(at.Addr().Unmap().WithZone("")); !v.Allow {
				denied = &Denied{v}
				return denied
			}
			return nil
		},
	}
	proto := "tcp"
	if f.Proto == network.UDP {
		proto = "udp"
	}
	c, err := nd.DialContext(ctx, proto, netip.AddrPortFrom(f.Addr, f.Port).String())
	if err != nil && denied != nil {
		return nil, denied
	}
	return c, err
}
