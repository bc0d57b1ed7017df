package card

import (
	"bytes"
	"context"
	_ "embed" // the guest's side
	"io"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/network"
)

//go:embed obey.py
var obedient string

const (
	// rounds are measured, after one that warms; each moves piece bytes each way.
	rounds = 9
	piece  = 4 << 20
)

// mover is a guest that moves bytes when it is told.
type mover struct {
	l   *net.TCPListener
	got chan error // how its program ended
}

// newMover boots one. A plain one and its gateway leave nothing to each other.
func newMover(t *testing.T, plain bool) *mover {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	g := start(t, port, plain, 1500)
	m := &mover{l: l, got: make(chan error, 1)}
	mode := "whole"
	if plain {
		mode = "plain"
	}
	go func() {
		var errs bytes.Buffer
		exit, err := g.Exec(context.WithoutCancel(t.Context()), &proto.ExecStart{
			ExecId: "mover", Argv: []string{"python3", "-c", obedient, network.HostName, port, strconv.Itoa(piece), mode},
		}, client.Streams{Stdout: &errs, Stderr: &errs})
		if err == nil && exit.GetExitCode() != 0 {
			err = io.ErrUnexpectedEOF
		}
		s, serr := g.up.Stats(context.WithoutCancel(t.Context()))
		t.Logf("%s: %v: the guest counts %s; the gateway %+v, %v", mode, err, &errs, s, serr)
		m.got <- err
	}()
	return m
}

// move has the guest move a piece, and returns the seconds that it took.
func (m *mover) move(t *testing.T, kind byte) float64 {
	t.Helper()
	must(t, m.l.SetDeadline(time.Now().Add(patience)))
	c, err := m.l.Accept()
	must(t, err)
	defer func() { _ = c.Close() }()
	must(t, c.SetDeadline(time.Now().Add(patience)))
	begun := time.Now()
	_, err = c.Write([]byte{kind})
	must(t, err)
	switch kind {
	case 'd':
		_, err = c.Write(make([]byte, piece))
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
	case 'u':
		_, err = io.CopyN(io.Discard, c, piece)
		if err == nil {
			_, err = c.Write([]byte("."))
		}
	}
	must(t, err)
	return time.Since(begun).Seconds()
}

func median(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }

// TestLabRates: with an MTU of 1500, a download is faster where the guest's card and the gateway leave segments to each other than where
// each is a frame. An upload is bound by the emulated guest and swings by more than the difference: it is told.
func TestLabRates(t *testing.T) {
	needLab(t)
	whole, plain := newMover(t, false), newMover(t, true)
	for i, way := range []struct {
		kind byte
		name string
	}{{'d', "download"}, {'u', "upload"}} {
		var ratios, with, without []float64
		for round := range rounds + 1 {
			a, b := whole.move(t, way.kind), plain.move(t, way.kind)
			if round > 0 {
				ratios, with, without = append(ratios, b/a), append(with, piece/a/(1<<20)), append(without, piece/b/(1<<20))
			}
		}
		t.Logf("%s with segments left to each other / without, %d pairs: %.2f (%.2f); %.2f and %.2f MiB/s", way.name, rounds, median(ratios), ratios, median(with), median(without))
		if way.kind == 'd' && median(ratios) < 1 {
			t.Errorf("a %s is slower with segments left to each other", way.name)
		}
		if i == 1 {
			whole.move(t, 'q')
			plain.move(t, 'q')
		}
	}
	must(t, <-whole.got)
	must(t, <-plain.got)
}
