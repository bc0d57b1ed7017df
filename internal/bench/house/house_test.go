package house

import (
	"os"
	"os/exec"
	"testing"
)

// A process that was told to end and is not collected yet is none of what a cycle leaves.
func TestDescriptorsOfEndingProcesses(t *testing.T) {
	before, err := descriptors()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sleep", "0.2")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if n, err := descriptors(); err != nil || n != before {
		t.Errorf("%d descriptors, %d before (%v)", n, before, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	f, err := os.Open("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if n, err := descriptors(); err != nil || n != before+1 {
		t.Errorf("%d descriptors with one file more than %d (%v)", n, before, err)
	}
}
