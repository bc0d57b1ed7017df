// Package memory tells how much memory there is for us: the host's, or less where a control group has a limit.
//
// Layer: leaf. It imports none of ours.
package memory

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Size is memory in bytes.
type Size struct {
	Total     int64 // that there is for us
	Available int64 // that can be taken without swapping
}

// Now returns what there is now.
func Now() (Size, error) {
	return read("/")
}

// read is Now below another root.
func read(root string) (Size, error) {
	f, err := os.Open(filepath.Join(root, "proc/meminfo")) //nolint:gosec // the host's own
	if err != nil {
		return Size{}, err
	}
	defer func() { _ = f.Close() }()
	s := parse(f)
	if s.Total == 0 || s.Available == 0 {
		return s, fmt.Errorf("%s names no MemTotal or MemAvailable", f.Name())
	}
	own, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup")) //nolint:gosec // the same
	if err != nil {
		return s, nil //nolint:nilerr // a kernel without control groups limits nothing
	}
	for line := range strings.Lines(string(own)) {
		if dir, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			s.below(filepath.Join(root, "sys/fs/cgroup"), dir, "memory.max", "memory.current")
		}
		if _, dir, ok := strings.Cut(strings.TrimSpace(line), ":memory:"); ok {
			s.below(filepath.Join(root, "sys/fs/cgroup/memory"), dir, "memory.limit_in_bytes", "memory.usage_in_bytes")
		}
	}
	return s, nil
}

// below applies the limits of a control group and of those above it.
func (s *Size) below(mount, dir, limitFile, usedFile string) {
	for dir = path.Clean("/" + dir); ; dir = path.Dir(dir) {
		if limit := number(filepath.Join(mount, dir, limitFile)); limit > 0 {
			s.Total = min(s.Total, limit)
			s.Available = min(s.Available, max(limit-number(filepath.Join(mount, dir, usedFile)), 1))
		}
		if dir == "/" {
			return
		}
	}
}

func number(file string) int64 {
	b, err := os.ReadFile(file) //nolint:gosec // a control group's
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64) // "max" is no number: no limit
	if err != nil {
		return 0
	}
	return n
}

// parse reads a meminfo.
func parse(r io.Reader) Size {
	var s Size
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 3 {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || n < 0 || n > 1<<50 {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			s.Total = n << 10
		case "MemAvailable:":
			s.Available = n << 10
		}
	}
	return s
}
