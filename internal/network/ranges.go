package network

import (
	"cmp"
	"net/netip"
	"slices"
)

// node is a range of addresses that rules or the closed table name. Ranges are nested: an address belongs to the smallest
// one that holds it, and to all of its parents.
type node struct {
	prefix netip.Prefix
	parent *node
	ids    []int32      // rules for exactly this range, ascending
	entry  *closedRange // set when the range is in the closed table
	reason string       // why it is closed
	fence  *node        // the nearest closed one among itself and its parents
}

func (n *node) closed() bool { return n != nil && n.fence != nil }

// ranges finds the node of an address.
type ranges struct {
	v4       []span4
	v4octets [257]int32 // where the spans that begin in each first octet begin
	v6       []span6
}

// Spans lie next to each other: each ends where the next one begins. A nil node is a gap.
type (
	span4 struct {
		first uint32
		node  *node
	}
	span6 struct {
		first netip.Addr
		node  *node
	}
)

// find returns the smallest node that holds addr, nil where there is none. It says no to what is no plain address.
func (r *ranges) find(addr netip.Addr) (n *node, ok bool) {
	addr = addr.Unmap()
	switch {
	case addr.Is4():
		b := addr.As4()
		return r.find4(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])), true
	case !addr.Is6() || addr.Zone() != "":
		return nil, false
	}
	i, found := slices.BinarySearchFunc(r.v6, addr, func(s span6, a netip.Addr) int { return s.first.Compare(a) })
	if !found {
		i--
	}
	return r.v6[i].node, true
}

func (r *ranges) find4(addr uint32) *node {
	low, high := int(r.v4octets[addr>>24]), int(r.v4octets[addr>>24+1])
	// The last span of former octets may reach into this one.
	for low < high {
		mid := int(uint(low+high) >> 1)
		if r.v4[mid].first <= addr {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return r.v4[low-1].node
}

// makeRanges nests the nodes and lays them out. Both families have something closed at their very beginning, so that every
// address has a span.
func makeRanges(nodes map[netip.Prefix]*node) ranges {
	sorted := make([]*node, 0, len(nodes))
	for _, n := range nodes {
		sorted = append(sorted, n)
	}
	// Outer ranges before those that they hold.
	slices.SortFunc(sorted, func(a, b *node) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	})
	var r ranges
	var open []*node // those that hold the present address, the innermost last
	leave := func() {
		top := open[len(open)-1]
		open = open[:len(open)-1]
		if next := last(top.prefix).Next(); next.IsValid() { // Next ends with its family
			r.add(next, innermost(open))
		}
	}
	for _, n := range sorted {
		for len(open) > 0 && !innermost(open).prefix.Contains(n.prefix.Addr()) {
			leave()
		}
		n.parent = innermost(open)
		if n.entry != nil {
			n.fence = n
		} else if n.parent != nil {
			n.fence = n.parent.fence
		}
		open = append(open, n)
		r.add(n.prefix.Addr(), n)
	}
	for len(open) > 0 {
		leave()
	}
	i := 0
	for octet := range r.v4octets {
		for i < len(r.v4) && int(r.v4[i].first>>24) < octet {
			i++
		}
		r.v4octets[octet] = int32(i)
	}
	return r
}

func innermost(open []*node) *node {
	if len(open) == 0 {
		return nil
	}
	return open[len(open)-1]
}

// add begins a span. One that begins at the same address was empty.
func (r *ranges) add(first netip.Addr, n *node) {
	if first.Is6() {
		if k := len(r.v6); k > 0 && r.v6[k-1].first == first {
			r.v6 = r.v6[:k-1]
		}
		r.v6 = append(r.v6, span6{first, n})
		return
	}
	b := first.As4()
	f := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	if k := len(r.v4); k > 0 && r.v4[k-1].first == f {
		r.v4 = r.v4[:k-1]
	}
	r.v4 = append(r.v4, span4{f, n})
}

// last is the last address of a range.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
