package clock

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestWait: its limit and its context end it. A jump needs a clock that a test may set.
func TestWait(t *testing.T) {
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	for range 2 {
		begin := time.Now()
		jumped, err := w.Wait(t.Context(), 30*time.Millisecond)
		if took := time.Since(begin); jumped || err != nil || took < 30*time.Millisecond || took > 10*time.Second {
			t.Errorf("jumped %v, %v, after %s", jumped, err, took)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := w.Wait(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after its context's end: %v", err)
	}
	if _, err := w.Wait(t.Context(), time.Millisecond); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
