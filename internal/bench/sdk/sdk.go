// Package sdk measures the Go SDK.
//
// Layer: part of the front bench. It may import smolvm (the SDK), bench/figure, api, errdefs.
package sdk

import (
	"context"
	"os"
	"time"

	"github.com/smolvm/smolvm"
	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/figure"
)

const block = 20 // of one kind, in turn with the other

// Compare compares Run("true") of the SDK, which asks a private server that asks the supervisor, with call, which does the same by
// itself. A pair is a block of each; the first one does not count.
func Compare(ctx context.Context, home, id string, runs int, call func() error, tell func(pair int)) (_ []api.Figure, err error) {
	own, err := os.Executable()
	if err != nil {
		return nil, errdefs.Host.Errorf("find ourselves: %w", err)
	}
	vm, err := smolvm.FromID(ctx, id, smolvm.WithBinary(own), smolvm.WithHome(home))
	if err != nil {
		return nil, err
	}
	defer func() { _ = vm.Close() }()
	run := func() error {
		res, err := vm.Run(ctx, "true")
		if err == nil && !res.OK() {
			err = errdefs.Internal.Errorf("true ended with exit code %d", res.ExitCode)
		}
		return err
	}
	var pairs figure.Pairs
	for i := range runs + 1 {
		tell(i)
		a, err := median(run)
		if err != nil {
			return nil, err
		}
		b, err := median(call)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			pairs.Add(a, b)
		}
	}
	return pairs.Figures("Go SDK's Run / in-process call", figure.AtMost(1.5), "Go SDK's Run p50", "in-process supervisor call p50", "ms"), nil
}

// median is that of the milliseconds of a block of calls.
func median(f func() error) (float64, error) {
	var took []float64
	for range block {
		begun := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begun).Seconds()*1e3)
	}
	return figure.Median(took), nil
}
