package engine

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
)

func TestValidate(t *testing.T) {
	file := func(name string, size int64) *os.File {
		f, err := os.OpenFile(filepath.Join(t.TempDir(), name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		return f
	}
	kernel, disk := file("kernel", 10), file("disk", 10)
	for _, c := range []struct {
		name   string
		change func(*Spec)
		err    string
	}{
		{"good", func(*Spec) {}, ""},
		{"whole pages", func(s *Spec) { s.Initrd = file("initrd", 3*InitrdAlign) }, ""},
		{"no whole pages", func(s *Spec) { s.Initrd = file("initrd", 3*InitrdAlign+4) }, "padded to a multiple of 4096"},
		{"CPUs", func(s *Spec) { s.CPUs = 65 }, "1 to 64"},
		{"memory", func(s *Spec) { s.MemoryMiB = 63 }, "64 MiB to 1 TiB"},
		{"kernel", func(s *Spec) { s.Kernel = nil }, "needs a kernel"},
		{"accelerator", func(s *Spec) { s.Accel = "" }, "needs an accelerator"},
		{"a long line", func(s *Spec) { s.Cmdline = strings.Repeat("x", MaxCmdline+1) }, "kernel command line"},
		{"two lines", func(s *Spec) { s.Cmdline = "a\nb" }, "kernel command line"},
		{"agent", func(s *Spec) { s.AgentPath = "" }, "agent socket"},
		{"drive's id", func(s *Spec) { s.Drives[0].ID = "a,b" }, "malformed or taken"},
		{"drive's id, long", func(s *Spec) { s.Drives[0].ID = strings.Repeat("a", 21) }, "malformed or taken"},
		{"drive twice", func(s *Spec) { s.Drives = append(s.Drives, s.Drives[0]) }, "malformed or taken"},
		{"drive without a file", func(s *Spec) { s.Drives[0].File = nil }, "has no file"},
		{"limit", func(s *Spec) { s.Drives[0].Limit.OpsPerSecond = -1 }, "a limit is negative"},
		{"card without a wire", func(s *Spec) { s.NIC = &NIC{MAC: make(net.HardwareAddr, 6), MTU: 1500} }, "network card"},
		{"card with two wires", func(s *Spec) { s.NIC = &NIC{FD: disk, MAC: make(net.HardwareAddr, 6), MTU: 1500, Unfiltered: true} }, "network card"},
		{"card", func(s *Spec) { s.NIC = &NIC{FD: disk, MAC: make(net.HardwareAddr, 6), MTU: 67} }, "network card"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Spec{CPUs: 1, MemoryMiB: 64, Kernel: kernel, Accel: "tcg", AgentPath: "a", Drives: []Drive{{ID: "disk", File: disk}}}
			c.change(&s)
			err := s.Validate()
			if c.err == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) || errdefs.ClassOf(err) != errdefs.Invalid {
				t.Errorf("%v, want %q of class invalid", err, c.err)
			}
		})
	}
}
