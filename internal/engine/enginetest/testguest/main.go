// Command testguest is the guest of the engines' contract suite: the only process of a VM that boots in a second. It
// loads the initramfs's modules, and does on the agent's port what enginetest asks for.
//
// Layer: engine, for tests.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/engine/enginetest"
	"github.com/smolvm/smolvm/internal/guest/link"
)

func main() {
	err := run()
	fmt.Println("testguest:", err)
	(&guest{}).PowerOff()
}

func run() error {
	for at, fs := range map[string]string{"/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs"} {
		if err := unix.Mount(fs, at, fs, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", at, err)
		}
	}
	if err := modules("/modules"); err != nil {
		return err
	}
	l, err := listen()
	if err != nil {
		return err
	}
	g := &guest{}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			_ = enginetest.Serve(conn, g)
			_ = conn.Close()
		}()
	}
}

// listen opens the way by which the engine comes.
func listen() (net.Listener, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	if slices.Contains(strings.Fields(string(line)), link.VsockParam) {
		return link.ListenVsock()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	path, err := link.FindPort(ctx, link.PortName)
	if err != nil {
		return nil, err
	}
	port, err := link.OpenPort(path)
	if err != nil {
		return nil, err
	}
	return link.Listen(port), nil
}

func modules(dir string) error {
	list, err := os.Open(filepath.Join(dir, "list"))
	if err != nil {
		return err
	}
	defer func() { _ = list.Close() }()
	names := bufio.NewScanner(list)
	for names.Scan() {
		f, err := os.Open(filepath.Join(dir, names.Text()))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", unix.MODULE_INIT_COMPRESSED_FILE)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("module %s: %w", names.Text(), err)
		}
	}
	return names.Err()
}

// guest is this machine.
type guest struct {
	mu   sync.Mutex
	word string
}

// Remember implements enginetest.Memory.
func (g *guest) Remember(word string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.word = word
}

// Recall implements enginetest.Memory.
func (g *guest) Recall() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.word
}

// PowerOff implements enginetest.Guest.
func (*guest) PowerOff() { _ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) }

// Reboot implements enginetest.Guest.
func (*guest) Reboot() { _ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) }

// Panic implements enginetest.Guest: the kernel panics when its init ends.
func (*guest) Panic() { os.Exit(3) }

// Print implements enginetest.Guest.
func (*guest) Print(line string) { fmt.Println(line) }

// WriteDrive implements enginetest.Guest. Synchronous, so that an error of the drive's is ours.
func (*guest) WriteDrive(id string, mib int) (err error) {
	f, err := openDrive(id)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i)
	}
	for range mib {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Sync()
}

func openDrive(id string) (*os.File, error) {
	dev, ok := link.FindDrives()[id]
	if !ok {
		return nil, fmt.Errorf("no drive %q", id)
	}
	return os.OpenFile(dev, os.O_RDWR|unix.O_SYNC, 0)
}
