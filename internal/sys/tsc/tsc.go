// Package tsc measures how fast the processor's time stamp counter runs. An emulated guest sees the host's counter and,
// on a busy host, cannot measure it itself.
//
// Layer: leaf. It imports none of ours.
package tsc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// ErrUnsupported is returned on processors without the counter.
var ErrUnsupported = errors.New("this processor has no time stamp counter")

// span is how long a measurement takes: the reading's own jitter of about a microsecond is 20 ppm of it.
const span = 50 * time.Millisecond

// record is the file that keeps the rate; it holds for one boot of the host.
type record struct {
	BootID string `json:"boot_id"`
	KHz    uint64 `json:"khz"`
}

// KHz returns the counter's rate. It is measured once per boot of the host and kept in file; where the file cannot be
// read or written it is measured again.
func KHz(ctx context.Context, file string) (uint64, error) {
	boot, err := bootID()
	if err == nil {
		if r, ok := load(file); ok && r.BootID == boot {
			return r.KHz, nil
		}
	}
	khz, merr := Measure(ctx)
	if merr != nil {
		return 0, merr
	}
	if err == nil {
		keep(file, record{boot, khz}) // a failure only means that we measure again
	}
	return khz, nil
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

func load(file string) (record, bool) {
	var r record
	b, err := os.ReadFile(file) //nolint:gosec // the caller's own file
	if err != nil || json.Unmarshal(b, &r) != nil {
		return record{}, false
	}
	return r, plausible(r.KHz)
}

func keep(file string, r record) {
	b, err := json.Marshal(r)
	if err == nil && os.MkdirAll(filepath.Dir(file), 0o700) == nil {
		_ = renameio.WriteFile(file, append(b, '\n'), 0o600)
	}
}

func plausible(khz uint64) bool { return khz >= 100_000 && khz <= 100_000_000 }

// Measure counts against CLOCK_MONOTONIC_RAW for 50 ms.
func Measure(ctx context.Context) (uint64, error) {
	if !supported {
		return 0, ErrUnsupported
	}
	c0, t0, err := read()
	if err != nil {
		return 0, err
	}
	select {
	case <-time.After(span):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	c1, t1, err := read()
	if err != nil {
		return 0, err
	}
	if t1 <= t0 || c1 <= c0 {
		return 0, errors.New("the time stamp counter ran backwards")
	}
	khz := uint64(float64(c1-c0) / float64(t1-t0) * 1e6)
	if !plausible(khz) {
		return 0, fmt.Errorf("the time stamp counter would run at %d kHz", khz)
	}
	return khz, nil
}

// read takes counter and clock as near to each other as it can: the best of several tries, since we may lose the
// processor between the two.
func read() (count, nanos uint64, err error) {
	best := ^uint64(0)
	for range 10 {
		var ts unix.Timespec
		before := rdtsc()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &ts); err != nil {
			return 0, 0, fmt.Errorf("read the clock: %w", err)
		}
		if took := rdtsc() - before; took < best {
			best, count, nanos = took, before+took/2, uint64(ts.Nano()) //nolint:gosec // positive
		}
	}
	return count, nanos, nil
}
