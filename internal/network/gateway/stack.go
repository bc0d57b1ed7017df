package gateway

import (
	"fmt"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/smolvm/smolvm/internal/network/gateway/queue"
)

const (
	nicID = 1

	// Buffers of one connection, each way. What all hold together has a bound of its own (MaxQueued).
	bufMin, bufDefault, bufMax = 4 << 10, 256 << 10, 1 << 20
	// Where processors have other work, acknowledgements are milliseconds late, and what is under way meanwhile is the rate. As
	// much as someConns may hold of both is MaxQueued.
	bufSend = 2 << 20
	// From so many connections on, a new one gets so much to send from.
	someConns, bufSome = 64, 64 << 10
	manyConns, bufMany = 512, 16 << 10
)

// newStack makes the TCP/IP stack behind a link: IPv4 only, one address of its own, and ready to be whoever the guest talks to.
func newStack(l *link) (*stack.Stack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	if err := setOptions(s); err != nil {
		s.Destroy()
		return nil, err
	}
	if err := attach(s, l); err != nil {
		s.Destroy()
		return nil, err
	}
	return s, nil
}

func setOptions(s *stack.Stack) error {
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: bufMin, Default: bufDefault, Max: bufMax}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: bufMin, Default: bufDefault, Max: bufSend}
	// What is left over of ended connections is nobody's any more, and costs memory.
	timeWait, linger := tcpip.TCPTimeWaitTimeoutOption(2*time.Second), tcpip.TCPLingerTimeoutOption(20*time.Second)
	retries := tcpip.TCPSynRetriesOption(3)
	// RACK takes for lost what is not acknowledged within twice the usual time, and halves the rate. Here that time is a tenth of
	// a millisecond, any guest that sleeps a moment is later, and next to nothing is ever lost.
	recovery := tcpip.TCPRecovery(0)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &receive, &send, &timeWait, &linger, &retries, &recovery} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("network stack: TCP option %T: %s", o, err)
		}
	}
	return nil
}

func attach(s *stack.Stack, l *link) error {
	own := tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(l.facts.Gateway.As4()), PrefixLen: 30},
	}
	for _, step := range []struct {
		what string
		do   func() tcpip.Error
	}{
		{"card", func() tcpip.Error {
			return s.CreateNICWithOptions(nicID, l, stack.NICOptions{QDisc: queue.New(l)})
		}},
		{"address", func() tcpip.Error { return s.AddProtocolAddress(nicID, own, stack.AddressProperties{}) }},
		// Whoever the guest talks to, it is us.
		{"promiscuous", func() tcpip.Error { return s.SetPromiscuousMode(nicID, true) }},
		{"spoofing", func() tcpip.Error { return s.SetSpoofing(nicID, true) }},
		// Where the guest is needs no asking, and it cannot tell us otherwise.
		{"neighbour", func() tcpip.Error {
			return s.AddStaticNeighbor(nicID, ipv4.ProtocolNumber, tcpip.AddrFrom4(l.facts.Guest.As4()), mac(l.facts.GuestMAC))
		}},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("network stack: %s: %s", step.what, err)
		}
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nicID}})
	return nil
}
