package bench

import (
	"context"
	"io"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/bench/figure"
)

const (
	execBlock = 20 // of one kind, in turn with the other kinds
	copyBytes = 256 << 20
	copyPath  = "/dev/shm/bench"
)

// timed returns the median milliseconds of n calls.
func timed(n int, f func() error) (float64, error) {
	var took []float64
	for range n {
		t0 := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(t0).Seconds()*1e3)
	}
	return figure.Median(took), nil
}

// execOverhead runs a command and returns the milliseconds that were not the guest's own fork to exit.
func (c *channels) execOverhead(ctx context.Context) (overhead, total float64, err error) {
	t0 := time.Now()
	res, err := c.vm.succeed(ctx, "true")
	total = time.Since(t0).Seconds() * 1e3
	return total - float64(res.GuestMicros)/1e3, total, err
}

func (c *channels) execBlock(ctx context.Context) (overhead, total float64, err error) {
	var o, t []float64
	for range execBlock {
		a, b, err := c.execOverhead(ctx)
		if err != nil {
			return 0, 0, err
		}
		o, t = append(o, a), append(t, b)
	}
	return figure.Median(o), figure.Median(t), nil
}

func runExec(ctx context.Context, o *Options) ([]api.Figure, error) {
	c, err := o.openChannels(ctx)
	if err != nil {
		return nil, err
	}
	defer c.close()
	var ping, exec, busy figure.Pairs
	payload := make([]byte, 8)
	for i := range o.runs(9) + 1 {
		o.tell("exec", "pair %d", i)
		e, err := timed(execBlock, func() error { return c.raw.Echo(payload) })
		if err != nil {
			return nil, err
		}
		p, err := timed(execBlock, func() error { return c.agent.Ping(ctx) })
		if err != nil {
			return nil, err
		}
		overhead, idle, err := c.execBlock(ctx)
		if err != nil {
			return nil, err
		}
		loaded, err := c.execDuringCopy(ctx)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			ping.Add(p, e)
			exec.Add(overhead, p)
			busy.Add(loaded, idle)
		}
	}
	figures := ping.Figures("ping / raw echo", figure.AtMost(7), "ping p50", "raw echo p50", "ms")
	figures = append(figures, exec.Figures("exec overhead / ping", figure.AtMost(8), "exec overhead p50", "ping p50 (same pairs)", "ms")...)
	return append(figures, busy.Figures("exec during a copy / idle", figure.AtMost(10), "exec during a copy p50", "exec idle p50", "ms")...), nil
}

// execDuringCopy returns the median milliseconds of commands that run while files are sent without a pause.
func (c *channels) execDuringCopy(ctx context.Context) (float64, error) {
	copying, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for copying.Err() == nil {
			_ = c.vm.guest.WriteFile(copying, copyPath, 0o600, io.LimitReader(zeros{}, copyBytes/4))
		}
	}()
	_, total, err := c.execBlock(ctx)
	stop()
	<-done
	if err != nil {
		return 0, err
	}
	return total, nil
}

// zeros gives zero bytes without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
