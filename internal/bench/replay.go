package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/figure"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// replayBytes is what a command printed, and how large the file is that it is compared with.
const replayBytes = 10 << 20

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// runReplay reads what a command printed before, in turn with copying a file of the same size out of the VM.
func runReplay(ctx context.Context, o *Options) ([]api.Figure, error) {
	v, err := o.startVMWith(ctx, api.Config{OutputMiB: api.MaxOutputMiB})
	if err != nil {
		return nil, err
	}
	defer o.removeVM(ctx, v)
	if _, err := v.succeed(ctx, "dd", "if=/dev/urandom", "of="+copyPath, "bs=1M", fmt.Sprint("count=", replayBytes>>20)); err != nil {
		return nil, err
	}
	p, err := v.guest.StartDetached(ctx, api.ExecRequest{Argv: []string{"cat", copyPath}, OnDisconnect: api.DisconnectKeep})
	if err == nil {
		_, err = v.guest.Wait(ctx, p.ExecID)
	}
	if err != nil {
		return nil, err
	}
	var all figure.Pairs
	for i := range o.runs(9) + 1 {
		o.tell("attach", "pair %d", i)
		t0 := time.Now()
		var n counter
		_, err := v.guest.Attach(ctx, api.AttachRequest{Process: p.ExecID}, lifecycle.AttachIO{ExecIO: lifecycle.ExecIO{Stdout: &n}})
		replay := time.Since(t0).Seconds() * 1e3
		if err == nil && n != replayBytes {
			err = errdefs.Internal.Errorf("%d of %d bytes were replayed", n, replayBytes)
		}
		if err != nil {
			return nil, err
		}
		t0 = time.Now()
		if err := v.readAll(ctx, copyPath, replayBytes); err != nil {
			return nil, err
		}
		if i > 0 {
			all.Add(replay, time.Since(t0).Seconds()*1e3)
		}
	}
	return all.Figures("attach replay / copy out", figure.AtMost(2), "attach replay of 10 MiB", "copy out of 10 MiB", "ms"), nil
}
