package gateway

import (
	"context"
	"slices"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network/gateway/frame"
)

const (
	sweepEvery = time.Second
	// How often frames that were dropped are told to the audit.
	reportEvery = 10 * time.Second

	// MaxQueued is what all connections together may have waiting in the stack.
	MaxQueued = 192 << 20
)

// sweep ends what moves nothing, keeps memory bounded and reports dropped frames, until ctx ends.
func (g *Gateway) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var reported [256]int64
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			open := g.flows.open()
			endIdle(open, g.flows.clock())
			endFattest(open, g.maxQueued)
			if now.Sub(last) >= reportEvery {
				g.reportDrops(&reported)
				last = now
			}
		}
	}
}

func endIdle(open []*flow, now time.Duration) {
	for _, f := range open {
		if int64(now)-f.last.Load() > f.limit.Load() {
			f.abort("idle")
		}
	}
}

// endFattest ends the connections that hold the most until all together hold no more than limit.
func endFattest(open []*flow, limit int) {
	type held struct {
		f *flow
		n int
	}
	all := make([]held, 0, len(open))
	total := 0
	for _, f := range open {
		n := f.waiting()
		total += n
		all = append(all, held{f, n})
	}
	if total <= limit {
		return
	}
	slices.SortFunc(all, func(a, b held) int { return b.n - a.n })
	for _, h := range all {
		if total <= limit/2 {
			return
		}
		h.f.abort("out of memory: it has too much waiting")
		total -= h.n
	}
}

// reportDrops tells the audit what was dropped since the last time.
func (g *Gateway) reportDrops(reported *[256]int64) {
	for _, d := range frame.Drops() {
		n := g.link.drops[d].Load()
		if n == reported[d] {
			continue
		}
		kind := "frame"
		if d == frame.ICMP {
			kind = "icmp"
		}
		g.record(api.NetRecord{Time: time.Now(), Kind: kind, Verdict: "deny", Rule: "link", Reason: d.String(), Count: n - reported[d]})
		reported[d] = n
	}
}
