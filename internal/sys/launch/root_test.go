package launch

import (
	"strings"
	"testing"
)

func TestMappedIDs(t *testing.T) {
	for name, c := range map[string]struct {
		uidMap string
		want   uint64
	}{
		"a host":             {"         0          0 4294967295\n", 4294967295},
		"rootless, one id":   {"         0       1000          1\n", 1},
		"rootless, a range":  {"         0       1000          1\n         1     100000      65536\n", 65537},
		"nothing is mapped":  {"", 0},
		"no line of the map": {"0 1\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mappedIDs(strings.NewReader(c.uidMap)); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}
