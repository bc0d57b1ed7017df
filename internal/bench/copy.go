package bench

import (
	"context"
	"io"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/figure"
)

func runCopy(ctx context.Context, o *Options) ([]api.Figure, error) {
	c, err := o.openChannels(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	var in, out figure.Pairs
	for i := range o.runs(5) + 1 {
		o.tell("copy", "pair %d", i)
		rawIn, err := rate(func() error { return c.raw.Send(copyBytes) })
		if err != nil {
			return nil, err
		}
		vmIn, err := rate(func() error {
			return c.vm.guest.WriteFile(ctx, copyPath, 0o600, io.LimitReader(zeros{}, copyBytes))
		})
		if err != nil {
			return nil, err
		}
		rawOut, err := rate(func() error { return c.raw.Receive(copyBytes) })
		if err != nil {
			return nil, err
		}
		vmOut, err := rate(func() error { return c.vm.readAll(ctx, copyPath, copyBytes) })
		if err != nil {
			return nil, err
		}
		// A file is written beside the one that it replaces, and the tmpfs has no room for both.
		if _, err := c.vm.succeed(ctx, "rm", copyPath); err != nil {
			return nil, err
		}
		if i > 0 {
			in.Add(vmIn, rawIn)
			out.Add(vmOut, rawOut)
		}
	}
	m, err := c.vm.guest.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	figures := in.Figures("copy in / raw channel", figure.AtLeast(0.4), "copy in", "raw channel in", "MiB/s")
	figures = append(figures, out.Figures("copy out / raw channel", figure.AtLeast(0.3), "copy out", "raw channel out", "MiB/s")...)
	return append(figures, figure.New("agent's peak resident memory", "MiB", figure.AtMost(32), []float64{float64(m.AgentPeakRSS) / (1 << 20)})), nil
}

// rate returns the MiB/s at which f moved copyBytes.
func rate(f func() error) (float64, error) { return rateOf(copyBytes, f) }

// rateOf runs f, which moves size bytes, and returns MiB/s.
func rateOf(size int, f func() error) (float64, error) {
	t0 := time.Now()
	if err := f(); err != nil {
		return 0, err
	}
	return float64(size) / (1 << 20) / time.Since(t0).Seconds(), nil
}

func (v *vm) readAll(ctx context.Context, path string, want int64) error {
	r, err := v.guest.ReadFile(ctx, path, 0, -1)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err == nil && n != want {
		err = errdefs.Internal.Errorf("%s: %d of %d bytes came", path, n, want)
	}
	return err
}
