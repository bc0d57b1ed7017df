package memory

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Resident is the memory of a process that is in RAM, in bytes; 0 when it is gone.
func Resident(pid int) uint64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 50)
			return n << 10
		}
	}
	return 0
}
