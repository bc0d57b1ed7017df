package contest

import (
	"context"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/bench/figure"
	"github.com/smolvm/smolvm/internal/bench/peer"
)

// usualMTU is Ethernet's.
const usualMTU = 1500

// The sides that show what it is good for that segments are left to the card, by their places.
const (
	withTAP = iota
	withPacket
	without
	slirp
)

func segmentSides() []side {
	return []side{
		withTAP:    gateway("TAP with GSO", peer.Card{MTU: usualMTU}),
		withPacket: gateway("packet socket with GSO", peer.Card{MTU: usualMTU, Packet: true}),
		without:    gateway("TAP without GSO", peer.Card{MTU: usualMTU, Plain: true}),
		slirp:      program("slirp4netns", 1, usualMTU, peer.Slirp),
	}
}

// ratio is a figure of two sides.
type ratio struct {
	a, b int
	goal figure.Goal
}

func segmentRatios() []ratio {
	return []ratio{
		{withTAP, without, figure.AtLeast(3)},
		{withPacket, without, figure.AtLeast(3)},
		{withTAP, slirp, figure.AtLeast(4)},
		{withPacket, slirp, figure.AtLeast(4)},
	}
}

// Segments compares our gateway with itself where each segment of TCP is a frame, and with slirp4netns, at an MTU of 1500.
func Segments(ctx context.Context, o Options) ([]api.Figure, error) {
	sides := segmentSides()
	why := make([]string, len(sides))
	var there []side
	place := make([]int, len(sides))
	for i, s := range sides {
		if why[i] = s.missing(); why[i] == "" {
			place[i] = len(there)
			there = append(there, s)
		}
	}
	var got rates
	if len(there) > 0 {
		var err error
		if got, err = (trial{64 << 20, 4}).measure(ctx, o, there...); err != nil {
			return nil, err
		}
	}
	return segmentFigures(sides, why, place, got), nil
}

// segmentFigures is what the sides that are there did; the others' figures are skipped, and say why.
func segmentFigures(sides []side, why []string, place []int, got rates) (out []api.Figure) {
	for _, one := range []struct {
		name string
		got  way
	}{{"download", got.down}, {"upload", got.up}} {
		for _, r := range segmentRatios() {
			name := sides[r.a].name + ", " + one.name + ", MTU 1500 / " + sides[r.b].name
			if w := why[r.a] + why[r.b]; w != "" {
				out = append(out, figure.Skipped(name, "ratio", r.goal, w))
				continue
			}
			p := figure.Pairs{A: one.got.rates[place[r.a]], B: one.got.rates[place[r.b]]}
			out = append(out, figure.New(name, "ratio", r.goal, p.Ratios()))
		}
		for i, s := range sides {
			if why[i] == "" {
				name := s.name + ", " + one.name + ", MTU 1500"
				out = append(out, figure.New(name, "MiB/s", figure.Goal{}, one.got.rates[place[i]]), figure.New(name+", processor", "s/GiB", figure.Goal{}, one.got.costs[place[i]]))
			}
		}
	}
	return out
}
