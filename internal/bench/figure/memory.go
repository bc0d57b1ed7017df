package figure

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// PrivateDirtyMiB is what a process holds of its own, as the kernel sums it up in smaps_rollup.
func PrivateDirtyMiB(pid int) (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, errdefs.Host.Errorf("memory of process %d: %w", pid, err)
	}
	defer func() { _ = f.Close() }()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if rest, ok := strings.CutPrefix(s.Text(), "Private_Dirty:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, errdefs.Host.Errorf("memory of process %d: smaps_rollup has no Private_Dirty", pid)
}
