// Package diagnose tells from a guest's console what a kernel lacks that did not reach its agent. What stands there is a
// claim: it is quoted, cut, and decides nothing.
//
// Layer: part of the supervisor. It may import errdefs, internal/sys.
package diagnose

import (
	"bytes"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/excerpt"
)

// lacks begins what the agent says where its kernel has no driver for something; internal/guest/agent/boot says it.
const lacks = "smolvm: the kernel has no driver for: "

// maxWords bounds what is quoted.
const maxWords = 500

// Console names what is missing, or is "".
func Console(tail []byte) string {
	if at := bytes.LastIndex(tail, []byte(lacks)); at >= 0 {
		line, _, _ := bytes.Cut(tail[at+len(lacks):], []byte("\n"))
		return "the kernel lacks drivers, which must be built in: " + excerpt.Printable(excerpt.Cut(strings.TrimSpace(string(line)), maxWords))
	}
	for _, known := range []struct{ says, means string }{
		{"Unable to mount root fs", "the kernel did not take our initramfs: it lacks CONFIG_BLK_DEV_INITRD"},
		{"Failed to execute /init (error -8)", "the kernel did not run our agent: it lacks CONFIG_BINFMT_ELF"},
		{"Failed to execute /init (error -2)", "the kernel did not take our initramfs: it lacks CONFIG_BLK_DEV_INITRD"},
		{"initramfs unpacking failed", "the kernel did not take our initramfs"},
	} {
		if bytes.Contains(bytes.ToLower(tail), []byte(strings.ToLower(known.says))) {
			return known.means
		}
	}
	if len(bytes.TrimSpace(tail)) == 0 {
		return "the kernel said nothing on its console: it lacks CONFIG_SERIAL_8250_CONSOLE, or does not boot on this machine at all (CONFIG_PVH)"
	}
	return ""
}

// consoleLines is how much of the console an error about a boot shows.
const consoleLines = 20

// Failed adds to the error of a boot what the console of the VM id says.
func Failed(err error, id string, tail []byte) error {
	if why := Console(tail); why != "" {
		err = errdefs.ClassOf(err).Errorf("%w: %s", err, why)
	}
	lines := excerpt.LastLines(tail, consoleLines)
	if lines == "" {
		return errdefs.ClassOf(err).Errorf("%w; the console is empty", err).WithRemedy("smolvm logs --console %s", id)
	}
	return errdefs.ClassOf(err).Errorf("%w; the console's last lines:\n%s", err, lines).WithRemedy("smolvm logs --console %s", id)
}

// Panic finds what the kernel said when it panicked.
func Panic(console []byte) (string, bool) {
	const mark = "Kernel panic - not syncing: "
	at := strings.LastIndex(string(console), mark)
	if at < 0 {
		return "", false
	}
	line, _, _ := strings.Cut(string(console[at+len(mark):]), "\n")
	return excerpt.LastLines([]byte(line), 1), true
}
