package engine

import (
	"regexp"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// driveID is what every engine takes as a drive's name and every guest shows as its serial (20 bytes in virtio-blk).
var driveID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,19}$`)

// MaxCmdline is the longest kernel command line, what a driver adds included (x86's COMMAND_LINE_SIZE is 2048).
const MaxCmdline = 1792

// InitrdAlign is what an initrd's size must be a multiple of. QEMU puts it at the very end of the memory, where newer
// firmware keeps the ACPI tables in the last page: of whole pages it ends before them, else it overwrites them.
const InitrdAlign = 4096

// Validate refuses what no driver can start. Drivers call it first.
func (s *Spec) Validate() error {
	switch {
	case s.Kernel == nil:
		return errdefs.Invalid.Errorf("a machine needs a kernel")
	case len(s.Cmdline) > MaxCmdline || strings.ContainsAny(s.Cmdline, "\x00\n"):
		return errdefs.Invalid.Errorf("a kernel command line of %d bytes: at most %d, on one line", len(s.Cmdline), MaxCmdline)
	}
	if s.Initrd != nil {
		st, err := s.Initrd.Stat()
		if err != nil {
			return errdefs.Invalid.Errorf("initrd: %w", err)
		}
		if st.Size()%InitrdAlign != 0 {
			return errdefs.Invalid.Errorf("an initrd of %d bytes: it must be padded to a multiple of %d", st.Size(), InitrdAlign)
		}
	}
	return s.ValidateRestore()
}

// ValidateRestore refuses what no driver can restore. What a machine boots from is in its snapshot.
func (s *Spec) ValidateRestore() error {
	switch {
	case s.CPUs < 1 || s.CPUs > 64:
		return errdefs.Invalid.Errorf("%d CPUs: 1 to 64 are possible", s.CPUs)
	case s.MemoryMiB < 64 || s.MemoryMiB > 1<<20:
		return errdefs.Invalid.Errorf("%d MiB of memory: 64 MiB to 1 TiB are possible", s.MemoryMiB)
	case s.Accel == "":
		return errdefs.Invalid.Errorf("a machine needs an accelerator's name")
	case s.AgentPath == "":
		return errdefs.Invalid.Errorf("a machine needs the path of its agent socket")
	}
	seen := map[string]bool{}
	for _, d := range s.Drives {
		if !driveID.MatchString(d.ID) || seen[d.ID] {
			return errdefs.Invalid.Errorf("drive %q: its id is malformed or taken", d.ID)
		}
		if d.File == nil {
			return errdefs.Invalid.Errorf("drive %q has no file", d.ID)
		}
		if d.Limit.BytesPerSecond < 0 || d.Limit.OpsPerSecond < 0 {
			return errdefs.Invalid.Errorf("drive %q: a limit is negative", d.ID)
		}
		seen[d.ID] = true
	}
	if n := s.NIC; n != nil && ((n.FD == nil && n.Take == nil) != n.Unfiltered || len(n.MAC) != 6 || n.MTU < 68 || n.MTU > 65535) {
		return errdefs.Invalid.Errorf("network card: it needs a wire, a 6-byte address and an MTU of 68 to 65535")
	}
	return nil
}
