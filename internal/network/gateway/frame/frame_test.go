package frame

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

func testLink() *Link {
	return &Link{
		GuestMAC: [6]byte{2, 0, 0, 0, 0, 1}, GatewayMAC: [6]byte{2, 0, 0, 0, 0, 2},
		Guest: netip.AddrFrom4([4]byte{10, 83, 0, 2}), Gateway: netip.AddrFrom4([4]byte{10, 83, 0, 1}),
	}
}

// ip is a good frame, changed.
func ip(proto byte, dst [4]byte, change func(f []byte)) []byte {
	l := testLink()
	f := append(append([]byte{}, l.GatewayMAC[:]...), l.GuestMAC[:]...)
	f = append(f, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0)
	f = append(append(f, l.Guest.AsSlice()...), dst[:]...)
	f = append(f, 8, 0, 0, 0, 0, 0, 0, 0)
	binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
	if change != nil {
		change(f)
	}
	return f
}

func TestCheck(t *testing.T) {
	public, gateway := [4]byte{198, 51, 100, 1}, [4]byte{10, 83, 0, 1}
	tests := []struct {
		name  string
		frame []byte
		want  Drop
	}{
		{"tcp", ip(protoTCP, public, nil), Pass},
		{"udp", ip(protoUDP, public, nil), Pass},
		{"echo to the gateway", ip(protoICMP, gateway, nil), Pass},
		{"echo to others", ip(protoICMP, public, nil), ICMP},
		{"other icmp", ip(protoICMP, gateway, func(f []byte) { f[34] = 13 }), ICMP},
		{"icmp cut short", ip(protoICMP, gateway, func(f []byte) { f[17] = 24 }), ICMP},
		{"sctp", ip(132, public, nil), Protocol},
		{"igmp", ip(2, public, nil), Protocol},
		{"empty", nil, Short},
		{"13 bytes", make([]byte, 13), Short},
		{"ipv6", ip(protoTCP, public, func(f []byte) { f[12], f[13] = 0x86, 0xdd }), IPv6},
		{"vlan", ip(protoTCP, public, func(f []byte) { f[12], f[13] = 0x81, 0 }), EtherType},
		{"lldp", ip(protoTCP, public, func(f []byte) { f[12], f[13] = 0x88, 0xcc }), EtherType},
		{"foreign source card", ip(protoTCP, public, func(f []byte) { f[11] = 9 }), ForeignCard},
		{"foreign card", ip(protoTCP, public, func(f []byte) { f[5] = 9 }), ForeignCard},
		{"to all cards", ip(protoTCP, public, func(f []byte) { copy(f, "\xff\xff\xff\xff\xff\xff") }), ForeignCard},
		{"spoofed", ip(protoTCP, public, func(f []byte) { f[29]++ }), Spoofed},
		{"from the gateway", ip(protoTCP, public, func(f []byte) { f[29] = 1 }), Spoofed},
		{"multicast", ip(protoUDP, [4]byte{224, 0, 0, 251}, nil), Multicast},
		{"broadcast", ip(protoUDP, [4]byte{255, 255, 255, 255}, nil), Multicast},
		{"nobody", ip(protoUDP, [4]byte{}, nil), Multicast},
		{"to itself", ip(protoUDP, [4]byte{10, 83, 0, 2}, nil), Multicast},
		{"options", ip(protoTCP, public, func(f []byte) { f[14] = 0x46 }), Options},
		{"version", ip(protoTCP, public, func(f []byte) { f[14] = 0x65 }), Malformed},
		{"header too short", ip(protoTCP, public, func(f []byte) { f[14] = 0x44 }), Malformed},
		{"longer than it is", ip(protoTCP, public, func(f []byte) { f[16] = 1 }), Malformed},
		{"shorter than its header", ip(protoTCP, public, func(f []byte) { f[17] = 19 }), Malformed},
		{"a later fragment", ip(protoUDP, public, func(f []byte) { f[21] = 9 }), Pass},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := testLink().Check(tt.frame); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestARP(t *testing.T) {
	l := testLink()
	good := append([]byte("\xff\xff\xff\xff\xff\xff"), l.GuestMAC[:]...)
	good = append(good, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	good = append(append(good, l.GuestMAC[:]...), l.Guest.AsSlice()...)
	good = append(append(good, make([]byte, 6)...), l.Gateway.AsSlice()...)
	change := func(at int, b byte) []byte {
		f := append([]byte{}, good...)
		f[at] = b
		return f
	}
	for name, tt := range map[string]struct {
		frame []byte
		want  Drop
	}{
		"question":         {good, Pass},
		"answer":           {change(21, 2), ARP},
		"for others":       {change(41, 7), ARP},
		"for itself":       {change(41, 2), ARP},
		"from others":      {change(31, 7), ARP},
		"from other cards": {change(27, 7), ARP},
		"cut short":        {good[:40], ARP},
	} {
		if got := l.Check(tt.frame); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// TestNames: every reason has one.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Drops() {
		if s := d.String(); s == "unknown" || s == "pass" || seen[s] {
			t.Errorf("reason %d is called %q", d, s)
		}
		seen[d.String()] = true
	}
}

// FuzzCheck: whatever passes comes from the guest's own address and card.
func FuzzCheck(f *testing.F) {
	f.Add(ip(protoTCP, [4]byte{198, 51, 100, 1}, nil))
	f.Add([]byte{})
	l := testLink()
	f.Fuzz(func(t *testing.T, b []byte) {
		if l.Check(b) != Pass {
			return
		}
		if [6]byte(b[6:12]) != l.GuestMAC {
			t.Error("a foreign card passes")
		}
		if b[12] == 8 && b[13] == 0 && [4]byte(b[26:30]) != l.Guest.As4() {
			t.Error("a foreign address passes")
		}
	})
}
