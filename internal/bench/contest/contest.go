// Package contest measures the throughput of a kernel that stands for a VM's, in a network namespace, behind our gateway and behind
// other programs, in turn.
//
// Layer: part of bench. It may import bench/figure, bench/peer, network/control, api, errdefs.
package contest

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/figure"
	"github.com/smolvm/smolvm/internal/bench/peer"
	"github.com/smolvm/smolvm/internal/network/control"
)

// Options are what is measured with.
type Options struct {
	Temp string
	Runs int // rounds
	Tell func(format string, args ...any)
	Log  *slog.Logger
}

// trial is how much is moved: size bytes in one connection, each way, and turns of each side make a round. Other work on the
// machine, which comes and goes, then meets all sides.
type trial struct{ size, turns int }

// side is one of those that are compared.
type side struct {
	name string
	open func(ctx context.Context, dir, port string, o Options) (*peer.Peer, error)
	// tries is how often a connection that breaks off is made: Debian 12's pasta resets some uploads.
	tries int
	tool  string // the program that it needs, if any
}

// gateway is our side, with a card.
func gateway(name string, card peer.Card) side {
	return side{name: name, tries: 1, open: func(ctx context.Context, dir, port string, o Options) (*peer.Peer, error) {
		return peer.Gateway(ctx, dir, port, card, o.Log)
	}}
}

// program is one that gives a namespace a network, too.
func program(tool string, tries, mtu int, open func(context.Context, int) (*peer.Peer, error)) side {
	return side{name: tool, tool: tool, tries: tries, open: func(ctx context.Context, _, _ string, _ Options) (*peer.Peer, error) { return open(ctx, mtu) }}
}

// missing is why a side cannot be measured here; empty where it can.
func (s side) missing() string {
	if os.Geteuid() != 0 {
		return "needs root, for a TAP and a network namespace"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return "ip is not installed (Debian's iproute2)"
	}
	if s.tool == "" {
		return ""
	}
	if _, err := exec.LookPath(s.tool); err != nil {
		return s.tool + " is not installed (script/bootstrap --dev installs it)"
	}
	return ""
}

// way is what each side did in each round one way: MiB/s, and the seconds of processor that it took for each GiB.
type way struct{ rates, costs [][]float64 }

// rates are both ways.
type rates struct{ down, up way }

func newWay(sides int) way { return way{make([][]float64, sides), make([][]float64, sides)} }

// measure has all sides move bytes, in turn.
func (t trial) measure(ctx context.Context, o Options, sides ...side) (rates, error) {
	r := rates{newWay(len(sides)), newWay(len(sides))}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return r, errdefs.Host.Errorf("a listener: %w", err)
	}
	defer func() { _ = l.Close() }()
	go Serve(l, t.size)
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return r, err
	}
	peers := make([]*peer.Peer, len(sides))
	for i, s := range sides {
		dir, err := os.MkdirTemp(o.Temp, "smolvm-bench-")
		if err != nil {
			return r, errdefs.Host.Errorf("a directory for the gateway: %w", err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if peers[i], err = s.open(ctx, dir, port, o); err != nil {
			return r, err
		}
		defer peers[i].Close()
	}
	for round := range o.Runs + 1 {
		o.Tell("TAP and %s, round %d", sides[len(sides)-1].name, round)
		for _, one := range []struct {
			kind byte
			to   way
		}{{'d', r.down}, {'u', r.up}} {
			took, cost, err := t.round(ctx, sides, peers, port, one.kind)
			if err != nil {
				return r, err
			}
			mib := float64(t.size*t.turns) / (1 << 20)
			for i := range sides {
				if round > 0 { // the first one warms
					one.to.rates[i] = append(one.to.rates[i], mib/took[i])
					one.to.costs[i] = append(one.to.costs[i], cost[i]*1024/mib)
				}
			}
		}
	}
	return r, nil
}

// round is what each side takes for its turns, of time and of a processor.
func (t trial) round(ctx context.Context, sides []side, peers []*peer.Peer, port string, kind byte) (took, cost []float64, err error) {
	took, cost = make([]float64, len(sides)), make([]float64, len(sides))
	for range t.turns {
		for i, s := range sides {
			before, err := figure.ProcessorSeconds(peers[i].PID())
			if err != nil {
				return nil, nil, err
			}
			secs, err := stream(ctx, peers[i], port, kind, t.size)
			for tries := 1; err != nil && tries < s.tries && ctx.Err() == nil; tries++ {
				secs, err = stream(ctx, peers[i], port, kind, t.size)
			}
			if err != nil {
				return nil, nil, err
			}
			after, err := figure.ProcessorSeconds(peers[i].PID())
			if err != nil {
				return nil, nil, err
			}
			took[i], cost[i] = took[i]+secs, cost[i]+after-before
		}
	}
	return took, cost, nil
}

// rival is a program that our gateway is compared with, with the MTU that VMs have.
type rival struct {
	side
	down, up figure.Goal
}

func rivals() []rival {
	return []rival{
		{program("slirp4netns", 1, control.MTU, peer.Slirp), figure.AtLeast(1.2), figure.AtLeast(2)},
		{program("pasta", 10, control.MTU, peer.Pasta), figure.Goal{}, figure.Goal{}},
	}
}

// Peers compares our gateway at a TAP's descriptor with other programs.
func Peers(ctx context.Context, o Options) ([]api.Figure, error) {
	var figures []api.Figure
	for _, r := range rivals() {
		why := r.missing()
		var got rates
		var err error
		if why == "" {
			if got, err = (trial{128 << 20, 6}).measure(ctx, o, gateway("TAP", peer.Card{}), r.side); err != nil {
				why = err.Error()
			}
		}
		if err != nil && r.down != (figure.Goal{}) {
			return nil, err
		}
		down, up := "TAP, download / "+r.name, "TAP, upload / "+r.name
		if why != "" {
			figures = append(figures, figure.Skipped(down, "ratio", r.down, why), figure.Skipped(up, "ratio", r.up, why))
			continue
		}
		pairs := figure.Pairs{A: got.down.rates[0], B: got.down.rates[1]}
		figures = append(figures, pairs.Figures(down, r.down, "TAP, download, beside "+r.name, r.name+", download", "MiB/s")...)
		pairs = figure.Pairs{A: got.up.rates[0], B: got.up.rates[1]}
		figures = append(figures, pairs.Figures(up, r.up, "TAP, upload, beside "+r.name, r.name+", upload", "MiB/s")...)
	}
	return figures, nil
}
