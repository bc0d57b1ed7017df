package dirwatch

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"
)

func TestWait(t *testing.T) {
	w, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	one, two := t.TempDir(), t.TempDir()
	for _, d := range []string{one, two} {
		if err := w.Add(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Add(one + "/none"); err == nil {
		t.Error("it watches what is not there")
	}
	if err := os.WriteFile(two+"/f", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Wait(t.Context()); err != nil || !slices.Equal(got, []string{two}) {
		t.Errorf("%v, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got, err := w.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", got, err)
	}
}
