// Package bare runs machines without SmolVM around them, by the engine alone: what a VM is compared with.
//
// Layer: below bench.
package bare

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/sys/undo"
)

// Kit is what a machine boots from: the same files and the same device list as a VM's.
type Kit struct {
	Image api.Image
	Boot  image.BootFiles
	Accel string
	// Network has the card lead to the engine's own network, where nothing is filtered, instead of nowhere.
	Network bool
}

// NewKit makes the default image and what goes with it, for a machine that runs by the accelerator.
func NewKit(ctx context.Context, images *image.Store, agent []byte, accel string, progress api.ProgressFunc) (Kit, error) {
	img, err := images.Ensure(ctx, api.DefaultImage, image.EnsureOptions{Progress: progress})
	if err != nil {
		return Kit{}, err
	}
	k, err := images.EnsureKernel(ctx, false, progress)
	if err != nil {
		return Kit{}, err
	}
	boot, err := images.BootFiles(ctx, k, agent)
	return Kit{Image: img, Boot: boot, Accel: accel}, err
}

// Machine is one that the engine alone runs.
type Machine struct {
	engine.Machine
	AgentPath string // the agent's socket
	undo      undo.Stack
}

// Close ends it, and nothing is left.
func (b *Machine) Close() { b.undo.Run() }

// Start starts a machine with the argv that a VM's would have, with its files below temp; cmdline is added to the kernel's.
func Start(ctx context.Context, e engine.Engine, kit Kit, temp, cmdline string) (*Machine, error) {
	b := &Machine{}
	ok := false
	defer func() {
		if !ok {
			b.Close()
		}
	}()
	dir, err := os.MkdirTemp(temp, "smolvm-bench-")
	if err != nil {
		return nil, errdefs.Host.Errorf("a directory for the bare machine: %w", err)
	}
	b.undo.Add(func() { _ = os.RemoveAll(dir) })
	spec, err := b.spec(dir, kit)
	if err != nil {
		return nil, err
	}
	spec.Cmdline = "quiet loglevel=4 panic=-1 " + cmdline
	if b.Machine, err = e.Start(ctx, spec); err != nil {
		return nil, err
	}
	b.undo.Add(func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = b.Stop(stop, 0)
	})
	ok = true
	return b, nil
}

func (b *Machine) spec(dir string, kit Kit) (engine.Spec, error) {
	disk := filepath.Join(dir, "disk.ext4")
	if err := image.NewDisk(disk, api.DefaultDiskMiB); err != nil {
		return engine.Spec{}, err
	}
	spec := engine.Spec{
		Name: "bench", CPUs: api.DefaultCPUs, MemoryMiB: api.DefaultMemoryMiB, Accel: kit.Accel,
		Console: io.Discard, MaxFileBytes: api.DefaultDiskMiB << 20,
	}
	for _, f := range []struct {
		path string
		flag int
		use  func(*os.File)
	}{
		{kit.Boot.Kernel, os.O_RDONLY, func(f *os.File) { spec.Kernel = f }},
		{kit.Boot.Initrd, os.O_RDONLY, func(f *os.File) { spec.Initrd = f }},
		{kit.Image.Path, os.O_RDONLY, func(f *os.File) {
			spec.Drives = append(spec.Drives, engine.Drive{ID: "image", File: f, ReadOnly: true})
		}},
		{disk, os.O_RDWR, func(f *os.File) { spec.Drives = append(spec.Drives, engine.Drive{ID: "disk", File: f}) }},
		{kit.Boot.Modules, os.O_RDONLY, func(f *os.File) {
			spec.Drives = append(spec.Drives, engine.Drive{ID: "modules", File: f, ReadOnly: true})
		}},
	} {
		file, err := os.OpenFile(f.path, f.flag, 0)
		if err != nil {
			return spec, errdefs.Image.Errorf("open what the bare machine boots from: %w", err)
		}
		b.undo.Add(func() { _ = file.Close() })
		f.use(file)
	}
	if kit.Network {
		spec.NIC = &engine.NIC{MAC: control.GuestMAC(), MTU: 1500, Unfiltered: true}
	} else if err := b.deafCard(&spec); err != nil {
		return spec, err
	}
	return spec, b.agentPort(dir, &spec)
}

// agentPort gives the machine its agent's port.
func (b *Machine) agentPort(dir string, spec *engine.Spec) error {
	b.AgentPath = filepath.Join(dir, "agent.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.AgentPath, Net: "unix"})
	if err != nil {
		return errdefs.Host.Errorf("agent socket: %w", err)
	}
	defer func() { _ = l.Close() }()
	l.SetUnlinkOnClose(false)
	if spec.AgentListener, err = l.File(); err != nil {
		return errdefs.Host.Errorf("agent socket: %w", err)
	}
	b.undo.Add(func() { _ = spec.AgentListener.Close() })
	spec.AgentPath = b.AgentPath
	return nil
}

// deafCard gives the machine a network card that nobody reads.
func (b *Machine) deafCard(spec *engine.Spec) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return errdefs.Host.Errorf("network socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "net"), os.NewFile(uintptr(pair[1]), "nic") //nolint:gosec // descriptors are small
	b.undo.Add(func() { _ = ours.Close(); _ = theirs.Close() })
	spec.NIC = &engine.NIC{FD: theirs, MAC: control.GuestMAC(), MTU: control.MTU}
	return nil
}
