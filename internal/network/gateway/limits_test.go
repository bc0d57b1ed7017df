package gateway

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
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
