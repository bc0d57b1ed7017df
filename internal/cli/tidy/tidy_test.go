package tidy

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// TestAsk: an answer is one, and Ctrl-C ends the question.
func TestAsk(t *testing.T) {
	for text, want := range map[string]bool{"y\n": true, " YES \n": true, "n\n": false, "\n": false, "yesterday\n": false, "\x04": false} {
		ours, theirs, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ours.WriteString(text); err != nil {
			t.Fatal(err)
		}
		var asked strings.Builder
		got, err := Env{Stdin: theirs}.ask(t.Context(), &asked)
		if err != nil || got != want || !strings.Contains(asked.String(), "[y/N]") {
			t.Errorf("%q is %v (%v), after %q", text, got, err, asked.String())
		}
		_, _ = ours.Close(), theirs.Close()
	}
	_, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	over := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(over) })
	done := make(chan error, 1)
	go func() {
		_, err := Env{Stdin: theirs}.ask(ctx, &strings.Builder{})
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, over) {
			t.Errorf("it ends with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it goes on waiting")
	}
}
