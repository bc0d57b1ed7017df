package launch

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
)

// IsRoot reports whether we are root over more than one user id: only then can a program be given an id of its own. The
// root of a rootless container often has just itself.
func IsRoot() bool {
	if os.Geteuid() != 0 {
		return false
	}
	f, err := os.Open("/proc/self/uid_map")
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	return mappedIDs(f) > 1
}

// mappedIDs counts the ids of a uid_map: lines of inside, outside, length.
func mappedIDs(r io.Reader) uint64 {
	var n uint64
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) == 3 {
			length, _ := strconv.ParseUint(f[2], 10, 32)
			n += length
		}
	}
	return n
}
