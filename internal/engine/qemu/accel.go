package qemu

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/sys/launch"
)

const (
	kvmDevice = "/dev/kvm"

	kvmGetAPIVersion = 0xAE00
	kvmAPIVersion    = 12
)

// accels lists what can be tried, best first.
func accels(device string) []engine.Accel {
	kvm := engine.Accel{Name: accelKVM}
	kvm.Missing, kvm.Remedy = kvmMissing(device)
	return []engine.Accel{kvm, {Name: accelTCG, Emulated: true}}
}

// kvmMissing says why KVM cannot even be tried.
func kvmMissing(device string) (missing, remedy string) {
	f, err := os.OpenFile(device, os.O_RDWR, 0) //nolint:gosec // a fixed path
	switch {
	case errors.Is(err, os.ErrNotExist):
		return device + " does not exist", "enable virtualisation in the firmware (or nested virtualisation), then: modprobe kvm_intel or kvm_amd"
	case err != nil:
		return fmt.Sprintf("%v", err), "usermod -aG kvm $USER, then log in again"
	}
	defer func() { _ = f.Close() }()
	v, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion) //nolint:gosec // a descriptor is small
	if err != nil || v != kvmAPIVersion {
		return fmt.Sprintf("%s answers with version %d (%v), not %d", device, v, err, kvmAPIVersion), "modprobe kvm_intel or kvm_amd"
	}
	if launch.IsRoot() {
		if _, err := kvmGroup(device); err != nil {
			return err.Error(), fmt.Sprintf("chgrp kvm %s && chmod 0660 %s", device, device)
		}
	}
	return "", ""
}

// kvmGroup returns the group through which a monitor with a user id of its own reaches the device; none where everybody
// may.
func kvmGroup(device string) ([]int, error) {
	info, err := os.Stat(device)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode().Perm()&0o006 == 0o006:
		return nil, nil
	case ok && st.Gid != 0 && info.Mode().Perm()&0o060 == 0o060:
		return []int{int(st.Gid)}, nil
	}
	return nil, fmt.Errorf("%s is for root alone (%v): the monitor, which runs as a user of its own, cannot open it", device, info.Mode().Perm())
}
