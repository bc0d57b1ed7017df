package ext4

import (
	"os"

	"golang.org/x/sys/unix"
)

// flushEvery is how much may be written before the kernel is told to begin with it.
const flushEvery = 16 << 20

// eager is a file whose pages go to the disk while it is still being written, so that the sync at the end waits for
// little. It changes no byte and promises nothing: whoever needs the file on disk still syncs it.
type eager struct {
	*os.File
	written, begun int64 // how far into the file
}

// Write implements io.Writer.
func (e *eager) Write(p []byte) (int, error) {
	n, err := e.File.Write(p)
	e.written += int64(n)
	if e.written-e.begun >= flushEvery {
		// A hint: a file system that cannot do it writes at the end.
		_ = unix.SyncFileRange(int(e.Fd()), e.begun, e.written-e.begun, unix.SYNC_FILE_RANGE_WRITE)
		e.begun = e.written
	}
	return n, err
}

// Seek implements io.Seeker.
func (e *eager) Seek(offset int64, whence int) (int64, error) {
	at, err := e.File.Seek(offset, whence)
	if err == nil {
		e.written, e.begun = at, at
	}
	return at, err
}
