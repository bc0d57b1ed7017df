// Package nodump keeps a process, and those that it starts, from leaving its memory in a core dump.
//
// Layer: leaf.
package nodump

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Forbid forbids core dumps. A limit of 1 and not of 0: that ends a dump to a program too (core_pattern(5): "|…"), which the
// kernel gives to such programs whatever the limit otherwise is.
func Forbid() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}); err != nil {
		return fmt.Errorf("forbid core dumps: %w", err)
	}
	return nil
}
