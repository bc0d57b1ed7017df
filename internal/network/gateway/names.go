package gateway

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"github.com/smolvm/smolvm/internal/network/gateway/dns"
)

const (
	portDNS = 53

	maxQuestion = 4 << 10
	// Connections to our name server, and how long one may be silent.
	maxDNSConns = 32
	idleDNS     = 15 * time.Second
)

// newResolver asks the host's resolver, or those that are named.
func newResolver(servers []netip.AddrPort) dns.Resolver {
	r := &net.Resolver{PreferGo: true}
	if len(servers) > 0 {
		r.Dial = func(ctx context.Context, proto, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, proto, servers[rand.N(len(servers))].String()) //nolint:gosec // nobody guesses anything here
		}
	}
	return r
}

// serveDNS answers questions to the gateway's address.
func (g *Gateway) serveDNS() error {
	at := tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFrom4(g.opts.Link.Gateway.As4()), Port: portDNS}
	packets, err := gonet.DialUDP(g.stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return fmt.Errorf("name server: %w", err)
	}
	conns, err := gonet.ListenTCP(g.stack, at, ipv4.ProtocolNumber)
	if err != nil {
		_ = packets.Close()
		return fmt.Errorf("name server: %w", err)
	}
	context.AfterFunc(g.ctx, func() {
		_ = packets.Close()
		conns.Shutdown()
		_ = conns.Close()
	})
	g.work.Go(func() { g.dnsPackets(packets) })
	g.work.Go(func() { g.dnsConns(conns) })
	return nil
}

// answer answers one question. What is too much is refused without being looked at.
func (g *Gateway) answer(msg []byte, tcp bool) []byte {
	g.asked.Add(1)
	limited := !g.questions.Load().Allow()
	if limited {
		g.limited.Add(1)
	}
	return g.dns.Answer(g.ctx, msg, tcp, limited)
}

func (g *Gateway) dnsPackets(c *gonet.UDPConn) {
	buf := make([]byte, maxQuestion)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			if g.ctx.Err() != nil {
				return
			}
			continue
		}
		select {
		case g.asking <- struct{}{}:
		default: // all are busy; the guest asks again
			g.limited.Add(1)
			if a := g.dns.Answer(g.ctx, buf[:n], false, true); a != nil {
				_, _ = c.WriteTo(a, from)
			}
			continue
		}
		msg := append([]byte(nil), buf[:n]...)
		g.work.Go(func() {
			defer func() { <-g.asking }()
			if a := g.answer(msg, false); a != nil {
				_, _ = c.WriteTo(a, from)
			}
		})
	}
}

func (g *Gateway) dnsConns(l *gonet.TCPListener) {
	places := make(chan struct{}, maxDNSConns)
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		select {
		case places <- struct{}{}:
		default:
			g.limited.Add(1)
			_ = c.Close()
			continue
		}
		g.work.Go(func() {
			defer func() { <-places }()
			defer context.AfterFunc(g.ctx, func() { _ = c.Close() })()
			defer func() { _ = c.Close() }()
			g.dnsConn(c)
		})
	}
}

// dnsConn answers the questions of one connection in turn.
func (g *Gateway) dnsConn(c net.Conn) {
	var head [2]byte
	for {
		_ = c.SetDeadline(time.Now().Add(idleDNS))
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(head[:]))
		if n > maxQuestion {
			return
		}
		msg := make([]byte, n)
		if _, err := io.ReadFull(c, msg); err != nil {
			return
		}
		a := g.answer(msg, true)
		if a == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...)); err != nil {
			return
		}
	}
}
