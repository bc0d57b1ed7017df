package figure

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// ProcessorSeconds is how long a process has had a processor, all its threads together. The kernel counts in hundredths.
func ProcessorSeconds(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, errdefs.Host.Errorf("processor time of process %d: %w", pid, err)
	}
	// Behind the name, which may have anything in it.
	fields := strings.Fields(string(b)[strings.LastIndexByte(string(b), ')')+1:])
	const user, system, hundredths = 11, 12, 100
	total := 0
	for _, i := range []int{user, system} {
		if i >= len(fields) {
			return 0, errdefs.Host.Errorf("processor time of process %d: a line of %d fields", pid, len(fields))
		}
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			return 0, errdefs.Host.Errorf("processor time of process %d: %w", pid, err)
		}
		total += n
	}
	return float64(total) / hundredths, nil
}
