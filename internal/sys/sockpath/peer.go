package sockpath

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Peer returns the user and the process at the other end of a unix socket, as they were when it connected.
func Peer(c *net.UnixConn) (uid uint32, pid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, 0, err
	}
	if cerr != nil {
		return 0, 0, fmt.Errorf("who is connecting: %w", cerr)
	}
	return cred.Uid, int(cred.Pid), nil
}
