// Package kvm looks at the kernel's own hypervisor for the engines that use it.
//
// Layer: engine. It imports engine and internal/sys.
package kvm

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
	// Name is the accelerator's.
	Name = "kvm"
	// Device is where it is reached.
	Device = "/dev/kvm"

	getAPIVersion = 0xAE00
	apiVersion    = 12
)

// Accel is the accelerator, with the reason why it cannot even be tried.
func Accel() engine.Accel {
	a := engine.Accel{Name: Name}
	a.Missing, a.Remedy = missing(Device)
	return a
}

func missing(device string) (why, remedy string) {
	f, err := os.OpenFile(device, os.O_RDWR, 0) //nolint:gosec // a fixed path
	switch {
	case errors.Is(err, os.ErrNotExist):
		return device + " does not exist", "enable virtualisation in the firmware (or nested virtualisation), then: modprobe kvm_intel or kvm_amd"
	case errors.Is(err, os.ErrPermission):
		return denied(device)
	case err != nil:
		return err.Error(), "modprobe kvm_intel or kvm_amd"
	}
	defer func() { _ = f.Close() }()
	v, err := unix.IoctlRetInt(int(f.Fd()), getAPIVersion) //nolint:gosec // a descriptor is small
	if err != nil || v != apiVersion {
		return fmt.Sprintf("%s answers with version %d (%v), not %d", device, v, err, apiVersion), "modprobe kvm_intel or kvm_amd"
	}
	if launch.IsRoot() {
		if _, err := group(device); err != nil {
			return err.Error(), openToGroup(device)
		}
	}
	return "", ""
}

// Groups returns the groups through which a monitor with a user id of its own reaches the devices; none where everybody
// may.
func Groups(devices ...string) (groups []int, err error) {
	for _, d := range devices {
		g, err := group(d)
		if err != nil {
			return nil, err
		}
		groups = append(groups, g...)
	}
	return groups, nil
}

// TAPMissing says why a monitor could not open a TAP, with the remedy; "" where it can.
func TAPMissing() (why, remedy string) {
	f, err := os.OpenFile(launch.TunDevice, os.O_RDWR, 0)
	if err == nil {
		err = f.Close()
	}
	if err == nil && launch.IsRoot() {
		_, err = group(launch.TunDevice)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "its network card needs " + launch.TunDevice + ", which does not exist", "modprobe tun"
	case err != nil:
		return fmt.Sprintf("its network card needs %s: %v", launch.TunDevice, err), "sudo chmod 0666 " + launch.TunDevice
	}
	if setting := launch.ForbiddenBy(); setting != "" && !launch.IsRoot() {
		return "its network card needs a network namespace, which this host lets only root make", setting
	}
	return "", ""
}

func group(device string) ([]int, error) {
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
