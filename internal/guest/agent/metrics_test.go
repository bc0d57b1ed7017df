package agent

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCounters(t *testing.T) {
	const dev = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     999       1    0    0    0     0          0         0      999       1    0    0    0     0       0          0
  eth0: 1234567      89    0    0    0     0          0         0   765432      98    0    0    0     0       0          0
`
	name := filepath.Join(t.TempDir(), "dev")
	if err := os.WriteFile(name, []byte(dev), 0o600); err != nil {
		t.Fatal(err)
	}
	if in, out := counters(name); in != 1234567 || out != 765432 {
		t.Errorf("%d in, %d out", in, out)
	}
	if in, out := counters(name + "x"); in != 0 || out != 0 {
		t.Errorf("of nothing: %d, %d", in, out)
	}
}
