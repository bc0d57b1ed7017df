package boot

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxPlain bounds what is read of a file that its users may have made anything of.
const maxPlain = 4 << 20

// readPlain reads a regular file. It does not wait for a pipe in its place: nothing of the guest's may keep the agent.
func readPlain(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &os.PathError{Op: "read", Path: path, Err: errors.New("it is no regular file")}
	}
	return io.ReadAll(io.LimitReader(f, maxPlain))
}
