package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/figure"
	"github.com/smolvm/smolvm/internal/bench/peer"
)

// peerBytes is what goes through one connection of a kernel peer, each way, and peerTurns how many of both make a pair: other
// work on the machine, which comes and goes, then meets both sides.
const (
	peerBytes = 128 << 20
	peerTurns = 6
)

// contest is a program that our gateway is compared with.
type contest struct {
	tool     string
	open     func(context.Context) (*peer.Peer, error)
	down, up figure.Goal
	// tries is how often a connection that breaks off is made again: Debian 12's pasta resets some uploads.
	tries int
}

func contests() []contest {
	return []contest{
		{"slirp4netns", peer.Slirp, figure.AtLeast(1.2), figure.AtLeast(2), 1},
		{"pasta", peer.Pasta, figure.Goal{}, figure.Goal{}, 10},
	}
}

// runPeers has a kernel in a namespace stand for the VM, behind our gateway and behind other programs.
func runPeers(ctx context.Context, o *Options) ([]api.Figure, error) {
	names := func(c contest) (down, up string) {
		return "TAP, download / " + c.tool, "TAP, upload / " + c.tool
	}
	var figures []api.Figure
	for _, c := range contests() {
		var why string
		if _, err := exec.LookPath(c.tool); err != nil {
			why = c.tool + " is not installed (script/bootstrap --dev installs it)"
		}
		if _, err := exec.LookPath("ip"); err != nil {
			why = "ip is not installed (Debian's iproute2)"
		}
		if os.Geteuid() != 0 {
			why = "needs root, for a TAP and a network namespace"
		}
		var more []api.Figure
		var err error
		if why == "" {
			more, err = o.peers(ctx, c)
		}
		if err != nil {
			why = err.Error()
			if c.down != (figure.Goal{}) {
				return nil, err
			}
		}
		if why != "" {
			down, up := names(c)
			more = []api.Figure{figure.Skipped(down, "ratio", c.down, why), figure.Skipped(up, "ratio", c.up, why)}
		}
		figures = append(figures, more...)
	}
	return figures, nil
}

// peers measures our gateway and one other program in turn.
func (o *Options) peers(ctx context.Context, c contest) ([]api.Figure, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, errdefs.Host.Errorf("a listener: %w", err)
	}
	defer func() { _ = l.Close() }()
	go serveNet(l, peerBytes)
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.TempDir, "smolvm-bench-")
	if err != nil {
		return nil, errdefs.Host.Errorf("a directory for the gateway: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ours, err := peer.Gateway(ctx, dir, port, o.Log)
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	theirs, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	down, up := figure.Pairs{}, figure.Pairs{}
	for i := range o.runs(5) + 1 {
		o.tell("net", "TAP and %s, round %d", c.tool, i)
		for _, way := range []struct {
			kind byte
			to   *figure.Pairs
		}{{'d', &down}, {'u', &up}} {
			var took [2]float64
			for range peerTurns {
				for j, p := range []*peer.Peer{ours, theirs} {
					rate, err := stream(ctx, p, port, way.kind)
					for tries := 1; err != nil && p == theirs && tries < c.tries && ctx.Err() == nil; tries++ {
						rate, err = stream(ctx, p, port, way.kind)
					}
					if err != nil {
						return nil, err
					}
					took[j] += 1 / rate
				}
			}
			if i > 0 { // the first one warms
				way.to.Add(peerTurns/took[0], peerTurns/took[1])
			}
		}
	}
	figures := down.Figures("TAP, download / "+c.tool, c.down, "TAP, download, beside "+c.tool, c.tool+", download", "MiB/s")
	return append(figures, up.Figures("TAP, upload / "+c.tool, c.up, "TAP, upload, beside "+c.tool, c.tool+", upload", "MiB/s")...), nil
}

// stream moves peerBytes over one connection and returns the rate.
func stream(ctx context.Context, p *peer.Peer, port string, kind byte) (float64, error) {
	c, err := p.Dial(ctx, port)
	if err != nil {
		return 0, errdefs.Network.Errorf("the kernel peer: %w", err)
	}
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if _, err := c.Write([]byte{kind}); err != nil {
		return 0, errdefs.Network.Errorf("the kernel peer: %w", err)
	}
	return rateOf(peerBytes, func() error {
		if kind == 'u' {
			b := make([]byte, 1<<20)
			for range peerBytes / len(b) {
				if _, err := c.Write(b); err != nil {
					return fmt.Errorf("the kernel peer sends: %w", err)
				}
			}
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				return err
			}
			_, err := io.ReadFull(c, make([]byte, 1))
			return err
		}
		b, got := make([]byte, 1<<20), 0
		for {
			n, err := c.Read(b)
			got += n
			switch {
			case got == peerBytes:
				return nil
			case err != nil:
				return fmt.Errorf("the kernel peer got %d bytes: %w", got, err)
			}
		}
	})
}
