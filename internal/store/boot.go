package store

import (
	"os"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// HostBootID names the present boot of the host: process ids of another one mean nothing.
func HostBootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", errdefs.Host.Errorf("which boot of the host is this: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
