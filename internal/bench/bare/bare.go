// Package bare runs machines without SmolVM around them, by the engine alone: what a VM is compared with.
//
// Layer: below bench.
package bare

import (
	"cmp"
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
	"github.com/smolvm/smolvm/internal/sys/filecopy"
	"github.com/smolvm/smolvm/internal/sys/undo"
)

// Kit is what a machine boots from: the same files and the same device list as a VM's.
type Kit struct {
	Image api.Image
	Boot  image.BootFiles
	Accel string
	// Network has the card lead to the engine's own network, where nothing is filtered, instead of nowhere.
	Network bool
	// MemoryMiB of a machine; 0 = a VM's default.
	MemoryMiB int
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
	DiskPath  string // of its writable disk
	undo      undo.Stack
}

// Close ends it, and nothing is left.
func (b *Machine) Close() { b.undo.Run() }

// Start starts a machine with the argv that a VM's would have, with its files below temp; cmdline is added to the kernel's.
func Start(ctx context.Context, e engine.Engine, kit Kit, temp, cmdline string) (*Machine, error) {
	return produce(ctx, kit, temp, newDisk, func(spec engine.Spec) (engine.Machine, error) {
		spec.Cmdline = "quiet loglevel=4 panic=-1 " + cmdline
		return e.Start(ctx, spec)
	})
}

// Restore makes a machine of the snapshot in dir, whose machine was made of the same kit; it is paused. disk belongs to the snapshot.
func Restore(ctx context.Context, e engine.Engine, kit Kit, temp, dir, disk string) (*Machine, error) {
	r, ok := e.(engine.Restorer)
	if !ok {
		return nil, errdefs.Engine.Errorf("%s has no snapshots", e.Name())
	}
	copied := func(path string) error { return cloneDisk(ctx, path, disk) }
	return produce(ctx, kit, temp, copied, func(spec engine.Spec) (engine.Machine, error) { return r.Restore(ctx, spec, dir) })
}

func newDisk(path string) error { return image.NewDisk(path, api.DefaultDiskMiB) }

func cloneDisk(ctx context.Context, path, from string) error {
	src, err := os.Open(from) //nolint:gosec // the benchmark's own
	if err != nil {
		return errdefs.Host.Errorf("the disk of a snapshot: %w", err)
	}
	defer func() { _ = src.Close() }()
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the benchmark's own
	if err != nil {
		return errdefs.Host.Errorf("the disk of a snapshot: %w", err)
	}
	err = filecopy.Clone(ctx, to, src)
	if cerr := to.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errdefs.Host.Errorf("the disk of a snapshot: %w", err)
	}
	return nil
}

// produce makes a machine with a disk of its own.
func produce(ctx context.Context, kit Kit, temp string, disk func(path string) error, how func(engine.Spec) (engine.Machine, error)) (*Machine, error) {
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
	b.DiskPath = filepath.Join(dir, "disk.ext4")
	if err := disk(b.DiskPath); err != nil {
		return nil, err
	}
	spec, err := b.spec(dir, kit)
	if err != nil {
		return nil, err
	}
	if b.Machine, err = how(spec); err != nil {
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
	spec := engine.Spec{
		Name: "bench", CPUs: api.DefaultCPUs, MemoryMiB: cmp.Or(kit.MemoryMiB, api.DefaultMemoryMiB), Accel: kit.Accel,
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
		{b.DiskPath, os.O_RDWR, func(f *os.File) { spec.Drives = append(spec.Drives, engine.Drive{ID: "disk", File: f}) }},
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
	take := func(f *os.File) error { // of an engine whose card is a TAP
		b.undo.Add(func() { _ = f.Close() })
		return nil
	}
	spec.NIC = &engine.NIC{FD: theirs, Take: take, MAC: control.GuestMAC(), MTU: control.MTU}
	return nil
}
