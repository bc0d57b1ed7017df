package looked

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/figure"
	"github.com/smolvm/smolvm/internal/bench/peer"
)

// guest is a client in the namespace that knows the server by one of its names.
type guest struct {
	p     *peer.Peer
	o     *origin
	name  string
	roots *x509.CertPool
	addr  netip.Addr
}

// client speaks HTTP/2, or 1.1, by connections of its own.
func (g *guest) client(h2 bool) *http.Client {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	return &http.Client{Transport: &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: g.roots, MinVersion: tls.VersionTLS12}, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if !g.addr.IsValid() {
				var err error
				if g.addr, err = g.p.Lookup(ctx, g.name); err != nil {
					return nil, err
				}
			}
			return g.p.DialAddr(ctx, netip.AddrPortFrom(g.addr, g.o.at.Port()))
		},
	}}
}

func (g *guest) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, method, "https://"+net.JoinHostPort(g.name, strconv.Itoa(int(g.o.at.Port())))+path, body)
}

// do makes a request and reads n bytes of its answer, or all of it where n is 0, and returns how long that took.
func (g *guest) do(ctx context.Context, c *http.Client, path string, n int64) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := g.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	res, err := c.Do(req)
	if err != nil {
		return 0, errdefs.Network.Errorf("%s: %w", g.name, err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 300))
		return 0, errdefs.Network.Errorf("%s: %s: %s", g.name, res.Status, b)
	}
	if n > 0 {
		_, err = io.CopyN(io.Discard, res.Body, n)
	} else {
		_, err = discard(res.Body)
	}
	if err != nil {
		return 0, errdefs.Network.Errorf("%s: %w", g.name, err)
	}
	return time.Since(begin), nil
}

func discard(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, make([]byte, 256<<10))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// inTurn does something n times each way, in turn, and returns the medians in milliseconds.
func inTurn(n int, a, b func() (time.Duration, error)) (float64, float64, error) {
	var first, second []float64
	for range n {
		da, err := a()
		if err != nil {
			return 0, 0, err
		}
		db, err := b()
		if err != nil {
			return 0, 0, err
		}
		first, second = append(first, ms(da)), append(second, ms(db))
	}
	return figure.Median(first), figure.Median(second), nil
}

func downloads(ctx context.Context, a, b *guest) (float64, float64, error) {
	once := func(g *guest) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			c := g.client(false)
			defer c.CloseIdleConnections()
			return g.do(ctx, c, "/down", 0)
		}
	}
	ma, mb, err := inTurn(1, once(a), once(b))
	if err != nil {
		return 0, 0, err
	}
	const mib = download / (1 << 20)
	return mib / ma * 1000, mib / mb * 1000, nil
}

func newRequests(ctx context.Context, a, b *guest) (float64, float64, error) {
	once := func(g *guest) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			c := g.client(true)
			defer c.CloseIdleConnections()
			return g.do(ctx, c, "/", 0)
		}
	}
	return inTurn(fresh, once(a), once(b))
}

func manyRequests(ctx context.Context, a, b *guest) (float64, float64, error) {
	many := func(g *guest) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			c := g.client(true)
			defer c.CloseIdleConnections()
			if _, err := g.do(ctx, c, "/", 0); err != nil { // connects
				return 0, err
			}
			begin := time.Now()
			for range onOne {
				if _, err := g.do(ctx, c, "/", 0); err != nil {
					return 0, err
				}
			}
			return time.Since(begin), nil
		}
	}
	return inTurn(1, many(a), many(b))
}

func firstEvents(ctx context.Context, a, b *guest) (float64, float64, error) {
	ca, cb := a.client(true), b.client(true)
	defer ca.CloseIdleConnections()
	defer cb.CloseIdleConnections()
	once := func(g *guest, c *http.Client) func() (time.Duration, error) {
		return func() (time.Duration, error) { return g.do(ctx, c, "/events", int64(len("data: first\n"))) }
	}
	if _, _, err := inTurn(1, once(a, ca), once(b, cb)); err != nil { // connects
		return 0, 0, err
	}
	return inTurn(streams, once(a, ca), once(b, cb))
}

// upload sends a large body and returns how much more than before it the gateway held at most, in MiB.
func (g *guest) upload(ctx context.Context) (float64, error) {
	c := g.client(true)
	defer c.CloseIdleConnections()
	if _, err := g.do(ctx, c, "/", 0); err != nil { // what looking into a first connection takes is idle
		return 0, err
	}
	idle, err := figure.PrivateDirtyMiB(g.p.PID())
	if err != nil {
		return 0, err
	}
	req, err := g.request(ctx, http.MethodPost, "/up", io.LimitReader(zeros{}, upload))
	if err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	go func() {
		res, err := c.Do(req)
		if err == nil {
			_, err = discard(res.Body)
			_ = res.Body.Close()
		}
		done <- err
	}()
	most := idle
	for {
		select {
		case err := <-done:
			if err != nil {
				return 0, errdefs.Network.Errorf("an upload: %w", err)
			}
			return most - idle, nil
		case <-time.After(20 * time.Millisecond):
			if now, err := figure.PrivateDirtyMiB(g.p.PID()); err == nil {
				most = max(most, now)
			}
		}
	}
}

// zeros is an endless file.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
