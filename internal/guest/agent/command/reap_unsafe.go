package command

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nextDead waits for a dead child and leaves it to be waited for.
func nextDead() (int, error) {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		return 0, err
	}
	const pidOffset = 16 // siginfo_t.si_pid, which x/sys has no field for
	raw := (*[unsafe.Sizeof(info)]byte)(unsafe.Pointer(&info))
	return int(binary.NativeEndian.Uint32(raw[pidOffset:])), nil
}
