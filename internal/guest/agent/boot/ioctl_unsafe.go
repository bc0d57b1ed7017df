package boot

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl asks the kernel for what x/sys has no function for; arg may be nil.
func ioctl[T any](fd, req uintptr, arg *T) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, req, uintptr(unsafe.Pointer(arg))); errno != 0 {
		return errno
	}
	return nil
}
