package raw

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
)

// tap makes a TAP that stays until it is removed, as Firecracker's users make one. Only root can, outside of a namespace.
func tap(name string) (remove func(), err error) {
	if err := setTAP(name, 1); err != nil {
		return nil, errdefs.Host.Errorf("a TAP for the bare monitor: %w", err)
	}
	return func() { _ = setTAP(name, 0) }, nil
}

func setTAP(name string, persist int) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fmt.Errorf("TUNSETIFF %s: %w", name, err)
	}
	return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, persist)
}
