package vm

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// peakOf is the most resident memory of a process that ended, in KiB.
func peakOf(t *testing.T, usage any) int {
	t.Helper()
	u, ok := usage.(*syscall.Rusage)
	if !ok {
		t.Fatalf("usage is %T", usage)
	}
	return int(u.Maxrss)
}

// highest is that of one that lives.
func highest(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nVmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

func contains(b []byte, text string) bool { return bytes.Contains(b, []byte(text)) }
