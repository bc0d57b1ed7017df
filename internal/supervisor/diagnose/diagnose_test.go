package diagnose

import (
	"strings"
	"testing"
)

func TestConsole(t *testing.T) {
	for _, tt := range []struct{ console, says string }{
		{"[ 1.0] Booting\nsmolvm: the kernel has no driver for: virtio_blk (CONFIG_VIRTIO_BLK)\r\npanic", "must be built in: virtio_blk (CONFIG_VIRTIO_BLK)"},
		{lacks + strings.Repeat("x", 4000), "xxx"},
		{lacks + "\x1b[31mred\x07", "red"},
		{"[ 1.0] VFS: Unable to mount root fs on unknown-block(0,0)", "CONFIG_BLK_DEV_INITRD"},
		{"Failed to execute /init (error -8)", "CONFIG_BINFMT_ELF"},
		{" \r\n", "CONFIG_SERIAL_8250_CONSOLE"},
		{"[ 1.0] Booting\n", ""},
	} {
		got := Console([]byte(tt.console))
		if !strings.Contains(got, tt.says) || tt.says == "" && got != "" || len(got) > maxWords+200 || strings.ContainsAny(got, "\x1b\x07\n\r") {
			t.Errorf("%.40q: %q", tt.console, got)
		}
	}
}
