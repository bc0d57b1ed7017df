package pidfd

import (
	"os/exec"
	"testing"
	"time"
)

// TestKill: it ends the process that was meant, and no other that has its number.
func TestKill(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	pid := cmd.Process.Pid
	ticks, err := StartTicks(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := Kill(t.Context(), pid, ticks+1); err != nil {
		t.Errorf("another process: %v", err)
	}
	select {
	case <-ended:
		t.Fatal("the wrong process was killed")
	case <-time.After(50 * time.Millisecond):
	}
	for range 2 {
		if err := Kill(t.Context(), pid, ticks); err != nil {
			t.Error(err)
		}
	}
	<-ended
}
