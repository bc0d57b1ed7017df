// Package frame decides which of a guest's Ethernet frames the network stack gets to see: well-formed ones from the guest's
// own address, for what the gateway speaks. It allocates nothing and never fails on what a guest may send.
//
// Layer: network, below gateway. It imports none of ours.
package frame

import (
	"encoding/binary"
	"net/netip"
)

// HeaderBytes is an Ethernet header.
const HeaderBytes = 14

// Drop says why a frame is not looked at. Pass: it is.
type Drop uint8

// The reasons.
const (
	Pass Drop = iota
	Short
	ForeignCard // not for the gateway's card, or not from the guest's
	IPv6
	EtherType // neither IPv4 nor ARP
	ARP       // an answer, a malformed question, or a question that is not ours to answer
	Malformed // an IPv4 header that is none
	Options   // IPv4 options: nothing here needs them
	Spoofed   // from an address that is not the guest's
	Multicast // to many, or to nobody
	ICMP      // anything but an echo request to the gateway
	Protocol  // neither TCP, UDP nor ICMP
	drops
)

// Drops are all reasons, in order.
func Drops() []Drop {
	all := make([]Drop, 0, drops-1)
	for d := Short; d < drops; d++ {
		all = append(all, d)
	}
	return all
}

// String names a reason.
func (d Drop) String() string {
	names := [...]string{
		"pass", "short", "foreign card", "ipv6", "ether type", "arp", "malformed", "ip options", "spoofed source", "multicast", "icmp", "ip protocol",
	}
	if int(d) < len(names) {
		return names[d]
	}
	return "unknown"
}

// Link is who is on the wire.
type Link struct {
	GuestMAC, GatewayMAC [6]byte
	Guest, Gateway       netip.Addr // IPv4
}

const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
)

// Check judges one frame.
func (l *Link) Check(f []byte) Drop {
	if len(f) < HeaderBytes {
		return Short
	}
	kind := binary.BigEndian.Uint16(f[12:])
	if kind == etherIPv6 {
		return IPv6
	}
	dst, src := [6]byte(f[0:6]), [6]byte(f[6:12])
	broadcast := dst == [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if src != l.GuestMAC || (dst != l.GatewayMAC && (!broadcast || kind != etherARP)) {
		return ForeignCard
	}
	switch kind {
	case etherIPv4:
		return l.ipv4(f[HeaderBytes:])
	case etherARP:
		return l.arp(f[HeaderBytes:])
	}
	return EtherType
}

// arp lets questions for the gateway's address pass.
func (l *Link) arp(p []byte) Drop {
	if len(p) < 28 || [8]byte(p[:8]) != [8]byte{0, 1, 8, 0, 6, 4, 0, 1} {
		return ARP
	}
	if [6]byte(p[8:14]) != l.GuestMAC || [4]byte(p[14:18]) != l.Guest.As4() || [4]byte(p[24:28]) != l.Gateway.As4() {
		return ARP
	}
	return Pass
}

func (l *Link) ipv4(p []byte) Drop {
	if len(p) < 20 || p[0]>>4 != 4 {
		return Malformed
	}
	header, total := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
	if header < 20 || total < header || total > len(p) {
		return Malformed
	}
	if header > 20 {
		return Options
	}
	src, dst := [4]byte(p[12:16]), [4]byte(p[16:20])
	if src != l.Guest.As4() {
		return Spoofed
	}
	if dst[0] >= 224 || dst[0] == 0 || dst == src {
		return Multicast
	}
	// A later fragment has no header of its own to look at; the stack puts it together with its first one, or drops it.
	first := binary.BigEndian.Uint16(p[6:])&0x1fff == 0
	switch p[9] {
	case protoTCP, protoUDP:
		return Pass
	case protoICMP:
		if dst != l.Gateway.As4() || (first && (total < header+8 || p[header] != 8)) {
			return ICMP
		}
		return Pass
	}
	return Protocol
}
