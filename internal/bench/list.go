package bench

import (
	"context"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/figure"
	"github.com/smolvm/smolvm/internal/bench/house"
)

// listRecords is how many VMs are listed.
const listRecords = 1000

// runList lists many VMs, in turn with reading their records and doing nothing with them.
func runList(ctx context.Context, o *Options) ([]api.Figure, error) {
	if err := o.ensure(ctx); err != nil {
		return nil, err
	}
	home, err := house.New(ctx, o.TempDir, o.Home, o.Elsewhere)
	if err != nil {
		return nil, err
	}
	defer home.Close()
	if err := home.Populate(ctx, listRecords); err != nil {
		return nil, err
	}
	var p figure.Pairs
	for i := range o.runs(20) + 1 {
		o.tell("ls", "pair %d", i)
		t0 := time.Now()
		all, err := home.Manager.List(ctx, true)
		ours := time.Since(t0).Seconds() * 1e3
		if err == nil && len(all) != listRecords {
			err = errdefs.Internal.Errorf("%d of %d VMs were listed", len(all), listRecords)
		}
		if err != nil {
			return nil, err
		}
		t0 = time.Now()
		if err := home.ReadRecords(); err != nil {
			return nil, errdefs.Host.Errorf("read the records: %w", err)
		}
		if i > 0 {
			p.Add(ours, time.Since(t0).Seconds()*1e3)
		}
	}
	return p.Figures("ls of 1,000 VMs / reading their records", figure.AtMost(3), "ls of 1,000 VMs", "reading their records", "ms"), nil
}
