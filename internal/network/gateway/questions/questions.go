// Package questions listens for a guest's questions about names, over both transports, and gives them to who answers.
//
// Layer: network, below gateway. It imports none of ours.
package questions

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	port = 53

	longest = 4 << 10
	// MaxAsking is how many questions over UDP may be under way.
	MaxAsking = 64
	// MaxConns is how many connections there may be. One may be silent for idle.
	MaxConns = 32
	idle     = 15 * time.Second
)

// Server answers at one address of a stack.
type Server struct {
	Stack *stack.Stack
	NIC   tcpip.NICID
	Addr  netip.Addr
	// Answer answers a message; nil: not at all. tooMany says that it is to be refused without a look at it.
	Answer func(msg []byte, tcp, tooMany bool) []byte
	// Refused counts a connection that is one too many.
	Refused func()

	asking chan struct{} // one place per question under way
}

// New makes a server of what is told of it.
func New(s Server) *Server {
	s.asking = make(chan struct{}, MaxAsking)
	return &s
}

// Asking is how many questions over UDP are under way.
func (s *Server) Asking() int { return len(s.asking) }

// Start listens until ctx ends. What it starts, it starts by work.
func (s *Server) Start(ctx context.Context, work *sync.WaitGroup) error {
	at := tcpip.FullAddress{NIC: s.NIC, Addr: tcpip.AddrFrom4(s.Addr.As4()), Port: port}
	packets, err := gonet.DialUDP(s.Stack, &at, nil, ipv4.ProtocolNumber)
	if err != nil {
		return fmt.Errorf("name server: %w", err)
	}
	conns, err := gonet.ListenTCP(s.Stack, at, ipv4.ProtocolNumber)
	if err != nil {
		_ = packets.Close()
		return fmt.Errorf("name server: %w", err)
	}
	context.AfterFunc(ctx, func() {
		_ = packets.Close()
		conns.Shutdown()
		_ = conns.Close()
	})
	work.Go(func() { s.packets(ctx, packets, work) })
	work.Go(func() { s.conns(ctx, conns, work) })
	return nil
}

func (s *Server) packets(ctx context.Context, c *gonet.UDPConn, work *sync.WaitGroup) {
	buf := make([]byte, longest)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			continue
		}
		select {
		case s.asking <- struct{}{}:
		default: // all are busy; the guest asks again
			if a := s.Answer(buf[:n], false, true); a != nil {
				_, _ = c.WriteTo(a, from)
			}
			continue
		}
		msg := append([]byte(nil), buf[:n]...)
		work.Go(func() {
			defer func() { <-s.asking }()
			if a := s.Answer(msg, false, false); a != nil {
				_, _ = c.WriteTo(a, from)
			}
		})
	}
}

func (s *Server) conns(ctx context.Context, l *gonet.TCPListener, work *sync.WaitGroup) {
	places := make(chan struct{}, MaxConns)
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		select {
		case places <- struct{}{}:
		default:
			s.Refused()
			_ = c.Close()
			continue
		}
		work.Go(func() {
			defer func() { <-places }()
			defer context.AfterFunc(ctx, func() { _ = c.Close() })()
			defer func() { _ = c.Close() }()
			s.conn(c)
		})
	}
}

// conn answers the questions of one connection in turn.
func (s *Server) conn(c net.Conn) {
	var head [2]byte
	for {
		_ = c.SetDeadline(time.Now().Add(idle))
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(head[:]))
		if n > longest {
			return
		}
		msg := make([]byte, n)
		if _, err := io.ReadFull(c, msg); err != nil {
			return
		}
		a := s.Answer(msg, true, false)
		if a == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...)); err != nil {
			return
		}
	}
}
