// Package seen remembers under which names a guest learned addresses, for the audit only.
//
// Layer: network, below gateway. It imports none of ours.
package seen

import (
	"net/netip"
	"sync"
)

// Names are the newest of them, Max at most.
type Names struct {
	mu    sync.Mutex
	names map[netip.Addr]string
	order [Max]netip.Addr
	next  int
}

// Max is how many addresses are remembered.
const Max = 2048

// New makes an empty one.
func New() *Names { return &Names{names: map[netip.Addr]string{}} }

// Add remembers a name; the oldest address makes room for a new one.
func (n *Names) Add(a netip.Addr, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.names[a]; !ok {
		delete(n.names, n.order[n.next])
		n.order[n.next] = a
		n.next = (n.next + 1) % Max
	}
	n.names[a] = name
}

// Name is the name under which an address was learned last, or "".
func (n *Names) Name(a netip.Addr) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.names[a]
}
