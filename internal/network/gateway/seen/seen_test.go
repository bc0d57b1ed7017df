package seen

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestNames(t *testing.T) {
	n := New()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}) }
	for i := range Max + 3 {
		n.Add(at(i), fmt.Sprint(i))
		n.Add(at(i), fmt.Sprint(i, " again"))
	}
	for i, want := range map[int]string{0: "", 2: "", 3: "3 again", Max + 2: fmt.Sprint(Max+2, " again"), Max + 3: ""} {
		if got := n.Name(at(i)); got != want {
			t.Errorf("%d: %q, want %q", i, got, want)
		}
	}
	if len(n.names) != Max {
		t.Errorf("%d are remembered", len(n.names))
	}
}
