package gateway

import (
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/smolvm/smolvm/internal/network"
	"github.com/smolvm/smolvm/internal/network/gateway/wire"
)

// TestLimits: the limits let pass what they say from the first moment on, and no more; they can be changed.
func TestLimits(t *testing.T) {
	w := newWorld(t, open(), func(o *Options) { o.Limits = Limits{Conns: 4, NewPerSec: 8, DNSPerSec: 3, Rate: 1 << 20} })
	w.outside.has("a.example.", "198.51.100.1")
	var codes []dnsmessage.RCode
	for range 4 {
		codes = append(codes, w.ask("a.example.", dnsmessage.TypeA).RCode)
	}
	if codes[0] != 0 || codes[2] != 0 || codes[3] != dnsmessage.RCodeRefused {
		t.Errorf("answers %v", codes)
	}

	const size = 2 << 20
	w.serve("198.51.100.1:80", func(c net.Conn) { _, _ = c.Write(make([]byte, size)) })
	w.serve("198.51.100.1:81", echo)
	begin := time.Now()
	slow := w.mustDial("198.51.100.1:80")
	if b, err := io.ReadAll(slow); err != nil || len(b) != size {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if took := time.Since(begin); took < time.Second || took > 6*time.Second {
		t.Errorf("%d bytes at 1 MiB a second took %s", size, took)
	}
	_ = slow.Close()
	until(t, "it ends", func() bool { return w.gateway.Stats().Open == 0 })
	var held []net.Conn
	for range 4 {
		held = append(held, w.mustDial("198.51.100.1:81"))
	}
	if c, err := w.dial("198.51.100.1:81"); err == nil {
		_ = c.Close()
		t.Error("a fifth connection is let through")
	}
	for _, c := range held {
		_ = c.Close()
	}
	until(t, "they end", func() bool { return w.gateway.Stats().Open == 0 })
	w.gateway.SetPolicy(w.gateway.policy.Load(), testLimits())
	begin = time.Now()
	if _, err := io.ReadAll(w.mustDial("198.51.100.1:80")); err != nil || time.Since(begin) > time.Second {
		t.Errorf("without a limit it took %s, %v", time.Since(begin), err)
	}
	for range 20 {
		_ = w.mustDial("198.51.100.1:81").Close()
		if m := w.ask("a.example.", dnsmessage.TypeA); m.RCode != 0 {
			t.Fatalf("%v", m)
		}
	}
}

// TestRateOfLargeFrames: a frame that is larger than what may come at once would not be held up at all.
func TestRateOfLargeFrames(t *testing.T) {
	for name, w := range map[string]wire.Wire{"datagram": nowhere{}, "offloads": unfinished{}} {
		t.Run(name, func(t *testing.T) {
			g, err := New(Options{
				Wire: w, Link: testLink(), MTU: 1500, Policy: compile(t, open()), Limits: Limits{Conns: 1, Rate: 1000}, Names: network.NewSynthetic(nil),
				Log: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { g.stop(); g.end() }()
			for _, l := range []*limiter{&g.in, &g.out} {
				if burst := l.Load().Burst(); burst < g.link.longest() {
					t.Errorf("frames of %d bytes, and %d may come at once", g.link.longest(), burst)
				}
			}
		})
	}
}

// unfinished is a wire with offloads that leads nowhere.
type unfinished struct{ nowhere }

func (unfinished) WriteOffload([][]byte, wire.Offload) error { return nil }
func (unfinished) Segmented() (read, written int64)          { return 0, 0 }

var _ wire.Offloader = unfinished{}
