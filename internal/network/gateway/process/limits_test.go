package process

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
)

// TestLimitsOf: what a policy leaves open is the default, what it says counts, as far as this process may have files.
func TestLimitsOf(t *testing.T) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	l := limitsOf(api.NetworkPolicy{})
	if l.NewPerSec != defaultNewPerSec || l.DNSPerSec != defaultDNSPerSec || l.Rate != 0 {
		t.Errorf("defaults: %+v", l)
	}
	l = limitsOf(api.NetworkPolicy{MaxConns: api.MaxConnsLimit, MaxNewPerSec: 1, MaxDNSPerSec: 2, RateKBps: 3})
	want := min(api.MaxConnsLimit, max(int(min(files.Cur, 1<<20))-spareFiles, 16))
	if l.Conns != want || l.NewPerSec != 1 || l.DNSPerSec != 2 || l.Rate != 3000 {
		t.Errorf("%+v, want %d connections", l, want)
	}
	if maxFiles < api.MaxConnsLimit+spareFiles {
		t.Errorf("a process may have %d files, and a policy %d connections", maxFiles, api.MaxConnsLimit)
	}
	if l := limitsOf(api.NetworkPolicy{MaxConns: 1}); l.Conns != 1 {
		t.Errorf("one connection: %+v", l)
	}
}
