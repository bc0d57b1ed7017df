package contest

import (
	"net"
	"os"
	"strings"
	"testing"
)

// TestSegmentFigures: each ratio is of its two sides, and the way's; what is not there is skipped, with its reason, and nothing else.
func TestSegmentFigures(t *testing.T) {
	sides := segmentSides()
	got := rates{
		down: way{[][]float64{{80}, {60}, {20}, {10}}, [][]float64{{1}, {2}, {3}, {4}}},
		up:   way{[][]float64{{90}, {45}, {30}, {9}}, [][]float64{{5}, {6}, {7}, {8}}},
	}
	values := map[string]float64{}
	for _, f := range segmentFigures(sides, make([]string, len(sides)), []int{0, 1, 2, 3}, got) {
		if f.Skipped != "" {
			t.Errorf("%+v", f)
		}
		values[f.Name] = f.Value
	}
	for name, want := range map[string]float64{
		"TAP with GSO, download, MTU 1500 / TAP without GSO": 4, "TAP with GSO, upload, MTU 1500 / TAP without GSO": 3,
		"packet socket with GSO, download, MTU 1500 / TAP without GSO": 3, "packet socket with GSO, upload, MTU 1500 / TAP without GSO": 1.5,
		"TAP with GSO, download, MTU 1500 / slirp4netns": 8, "packet socket with GSO, upload, MTU 1500 / slirp4netns": 5,
		"slirp4netns, download, MTU 1500": 10, "TAP without GSO, upload, MTU 1500": 30,
		"slirp4netns, download, MTU 1500, processor": 4, "TAP with GSO, upload, MTU 1500, processor": 5,
	} {
		if values[name] != want {
			t.Errorf("%s is %v, want %v", name, values[name], want)
		}
	}
	const why = "slirp4netns is not installed"
	less := rates{down: way{got.down.rates[:3], got.down.costs[:3]}, up: way{got.up.rates[:3], got.up.costs[:3]}}
	skipped := 0
	for _, f := range segmentFigures(sides, []string{"", "", "", why}, []int{0, 1, 2, 0}, less) {
		if against := strings.HasSuffix(f.Name, "/ slirp4netns"); against != (f.Skipped == why) || against && (!f.OK || f.Goal != ">= 4") {
			t.Errorf("%+v", f)
		} else if against {
			skipped++
		}
	}
	if skipped != 4 {
		t.Errorf("%d figures are skipped", skipped)
	}
}

// TestMissing: what a side needs and lacks is named.
func TestMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, s := range segmentSides() {
		why := s.missing()
		if os.Geteuid() != 0 && !strings.Contains(why, "root") || os.Geteuid() == 0 && !strings.Contains(why, "ip is not installed") {
			t.Errorf("%s: %q", s.name, why)
		}
	}
}

// TestStream: all goes down and up, and a connection that ends early is an error.
func TestStream(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	const size = 4 << 20
	go Serve(l, size)
	for kind, move := range map[string]func(net.Conn, int) error{"d": take, "u": send} {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err = c.Write([]byte(kind)); err == nil {
			err = move(c, size)
		}
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		_ = c.Close()
	}
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("d")); err != nil {
		t.Fatal(err)
	}
	if err := take(c, size+1); err == nil {
		t.Error("a download that ends early is taken for a whole one")
	}
}
