package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Port is the guest's virtio-serial port.
type Port struct {
	file *os.File
	raw  syscall.RawConn
	away bool // the host's absence was told
}

// OpenPort opens the port at path. It need not have a host yet.
func OpenPort(path string) (*Port, error) {
	// Not blocking: the driver's blocking write waits, spinning, until the host took each buffer.
	fd, err := syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("link: open %s: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("link: %s: %w", path, err)
	}
	return &Port{file: file, raw: raw}, nil
}

// Read reads what the host sent. When the host went away it says so once; the next Read waits for one to come. (The driver
// then returns 0 bytes at once and poll(2) never waits; the runtime's edge-triggered wait does.)
func (p *Port) Read(b []byte) (int, error) {
	var n int
	var err error
	rerr := p.raw.Read(func(fd uintptr) bool {
		for {
			n, err = syscall.Read(int(fd), b)
			if !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		switch {
		case errors.Is(err, syscall.EAGAIN):
			return false
		case err == nil && n == 0 && len(b) > 0:
			if p.away {
				return false
			}
			p.away = true
			err = errHangup
		case n > 0:
			p.away = false
		}
		return true
	})
	if rerr != nil {
		return 0, rerr
	}
	return max(n, 0), err
}

// Write writes to the host and waits while there is none.
func (p *Port) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return n, err
}

// Close closes the port.
func (p *Port) Close() error { return p.file.Close() }

// FindPort returns the device of the port called name and waits for it until ctx ends: the kernel learns of ports after
// the driver's start.
func FindPort(ctx context.Context, name string) (string, error) {
	const class = "/sys/class/virtio-ports"
	for {
		ports, _ := os.ReadDir(class)
		for _, p := range ports {
			b, err := os.ReadFile(filepath.Join(class, p.Name(), "name"))
			if err == nil && strings.TrimSpace(string(b)) == name {
				return filepath.Join("/dev", p.Name()), nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("link: no virtio port %q: %w", name, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}
