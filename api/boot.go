package api

import (
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

const (
	// MaxBootArgs bounds Config.BootArgs: x86 has no longer command line.
	MaxBootArgs = 2048
	// MaxAuthorizedKeys bounds Config.AuthorizedKeys.
	MaxAuthorizedKeys = 64

	maxKeyBytes = 16 << 10
	maxHostPath = 4096
)

// validateBoot refuses what a VM cannot boot from, as far as that can be told without a look at files.
func (c Config) validateBoot() error {
	if c.RootfsPath != "" && c.Image != "" {
		return errdefs.Invalid.Errorf("rootfs path: it takes the place of an image, and %q is given too", c.Image)
	}
	for name, path := range map[string]string{"rootfs path": c.RootfsPath, "kernel path": c.KernelPath} {
		if path != "" && (!strings.HasPrefix(path, "/") || len(path) > maxHostPath || strings.Contains(path, "\x00")) {
			return errdefs.Invalid.Errorf("%s: %.200q is no absolute path", name, path)
		}
	}
	if len(c.BootArgs) > MaxBootArgs {
		return errdefs.Invalid.Errorf("boot args: %d bytes are more than %d", len(c.BootArgs), MaxBootArgs)
	}
	if len(c.AuthorizedKeys) > MaxAuthorizedKeys {
		return errdefs.Invalid.Errorf("authorized keys: %d are more than %d", len(c.AuthorizedKeys), MaxAuthorizedKeys)
	}
	for i, key := range c.AuthorizedKeys {
		if len(key) > maxKeyBytes || strings.ContainsAny(key, "\r\n\x00") {
			return errdefs.Invalid.Errorf("authorized keys: number %d is not one line of at most %d bytes", i+1, maxKeyBytes)
		}
	}
	return nil
}
