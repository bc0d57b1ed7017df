package kvm

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/internal/sys/launch"
)

// TestLack: who may not use a device is told which group has it, and the command that puts him there.
func TestLack(t *testing.T) {
	for name, c := range map[string]struct {
		mode        fs.FileMode
		group       string
		gid         uint32
		member      bool
		why, remedy string
	}{
		"not in the group": {0o660, "kvm", 108, false, "/dev/kvm is for the group kvm, and ann is not in it", "sudo usermod -aG kvm ann, then log in again"},
		"another group":    {0o660, "virt", 300, false, "/dev/kvm is for the group virt, and ann is not in it", "sudo usermod -aG virt ann, then log in again"},
		"a nameless one":   {0o660, "995", 995, false, "/dev/kvm is for the group 995, and ann is not in it", "sudo usermod -aG 995 ann, then log in again"},
		"an old session":   {0o660, "kvm", 108, true, "/dev/kvm is for the group kvm, which ann joined after this session began", "log in again, or: newgrp kvm"},
		"root's alone":     {0o600, "root", 0, false, "/dev/kvm is for root alone (-rw-------, group root)", "sudo chgrp kvm /dev/kvm && sudo chmod 0660 /dev/kvm && sudo usermod -aG kvm ann, then log in again"},
		"a closed group":   {0o600, "kvm", 108, false, "/dev/kvm is for root alone (-rw-------, group kvm)", "sudo chgrp kvm /dev/kvm && sudo chmod 0660 /dev/kvm && sudo usermod -aG kvm ann, then log in again"},
	} {
		t.Run(name, func(t *testing.T) {
			if why, remedy := lack(Device, c.mode, c.group, c.gid, "ann", c.member); why != c.why || remedy != c.remedy {
				t.Errorf("%q, %q", why, remedy)
			}
		})
	}
}

// TestMissing: each way in which KVM is not there is told apart.
func TestMissing(t *testing.T) {
	dir := t.TempDir()
	if why, remedy := missing(filepath.Join(dir, "none")); !strings.Contains(why, "does not exist") || !strings.Contains(remedy, "modprobe") {
		t.Errorf("%q, %q", why, remedy)
	}
	foreign := filepath.Join(dir, "foreign")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if why, remedy := missing(foreign); !strings.Contains(why, "answers with version") || remedy == "" {
		t.Errorf("%q, %q", why, remedy)
	}
	if launch.IsRoot() {
		return // may open whatever it is
	}
	if err := os.Chmod(foreign, 0); err != nil {
		t.Fatal(err)
	}
	if why, remedy := missing(foreign); !strings.Contains(why, foreign+" is for ") || !strings.Contains(remedy, "sudo ") {
		t.Errorf("%q, %q", why, remedy)
	}
}
