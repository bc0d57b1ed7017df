package show

import (
	"os"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// TestProgressWhileDrawn: who reports never waits for what is drawn, which waits for the report.
func TestProgressWhileDrawn(t *testing.T) {
	w, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	p := &Progress{w: w}
	p.show()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for begun := time.Now(); time.Since(begun) < time.Second; { // several times of drawing
			p.Report(api.Progress{Stage: "test", Done: 1, Total: 2})
		}
		p.Stop()
		p.Report(api.Progress{Stage: "late"})
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("a report waits for ever")
	}
}
