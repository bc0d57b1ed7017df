package network

import "net/netip"

// closedRange is an entry of the closed table.
type closedRange struct {
	text string
	why  string
	// never means that no rule may open it: it cannot be reached from a guest in any honest way.
	never bool
}

// closedTable is what is closed to every guest. Documentation ranges are not in it.
func closedTable() []closedRange {
	const (
		private   = "a private address"
		transit   = "an address in which another may hide"
		multicast = "a multicast or broadcast address"
	)
	return []closedRange{
		{"0.0.0.0/8", "an address of no host", true},
		{"10.0.0.0/8", private, false},
		{"100.64.0.0/10", "a carrier's private address", false},
		{"127.0.0.0/8", "the host's loopback", true},
		{"169.254.0.0/16", "a link-local or metadata address", false},
		{"172.16.0.0/12", private, false},
		{"192.0.0.0/24", "a special-purpose address", false},
		{"192.168.0.0/16", private, false},
		{"198.18.0.0/15", "an address of the gateway's own names", true},
		{"224.0.0.0/3", multicast, true},
		{"168.63.129.16/32", "a cloud's metadata address", false},
		{"::/128", "an address of no host", true},
		{"::1/128", "the host's loopback", true},
		{"::ffff:0:0/96", transit, true},
		{"64:ff9b::/96", transit, false},
		{"64:ff9b:1::/48", transit, false},
		{"2002::/16", transit, false},
		{"2001::/32", transit, false},
		{"fc00::/7", private, false},
		{"fe80::/10", "a link-local address", true},
		{"ff00::/8", multicast, true},
	}
}

// closedPrefixes is the table with the host's own addresses, parsed.
func closedPrefixes(host []netip.Addr) []closedPrefix {
	var out []closedPrefix
	for _, c := range closedTable() {
		out = append(out, closedPrefix{netip.MustParsePrefix(c.text), c})
	}
	for _, a := range host {
		a = a.WithZone("").Unmap()
		if !a.IsValid() {
			continue
		}
		out = append(out, closedPrefix{netip.PrefixFrom(a, a.BitLen()), closedRange{a.String(), "an address of the host itself", false}})
	}
	return out
}

type closedPrefix struct {
	prefix netip.Prefix
	closedRange
}
