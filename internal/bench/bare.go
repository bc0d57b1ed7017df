package bench

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

// bareKit is what a machine without SmolVM around it boots from: the same files and the same device list as a VM's.
type bareKit struct {
	img   api.Image
	boot  image.BootFiles
	accel string
	// network has the card lead to the engine's own network, where nothing is filtered, instead of nowhere.
	network bool
}

// bareKit makes the files and picks the accelerator of the VM id, so that both sides run the same.
func (o *Options) bareKit(ctx context.Context, accel string) (bareKit, error) {
	img, err := o.Images.Ensure(ctx, api.DefaultImage, image.EnsureOptions{Progress: o.Progress})
	if err != nil {
		return bareKit{}, err
	}
	k, err := o.Images.EnsureKernel(ctx, false, o.Progress)
	if err != nil {
		return bareKit{}, err
	}
	boot, err := o.Images.BootFiles(ctx, k, o.Agent)
	return bareKit{img: img, boot: boot, accel: accel}, err
}

// bare is a machine that the engine alone runs.
type bare struct {
	engine.Machine
	agentPath string
	undo      undo.Stack
}

func (b *bare) close() { b.undo.Run() }

// startBare starts a machine with the argv that a VM's would have; cmdline is added to the kernel's.
func (o *Options) startBare(ctx context.Context, kit bareKit, cmdline string) (*bare, error) {
	b := &bare{}
	ok := false
	defer func() {
		if !ok {
			b.close()
		}
	}()
	dir, err := os.MkdirTemp(o.TempDir, "smolvm-bench-")
	if err != nil {
		return nil, errdefs.Host.Errorf("a directory for the bare machine: %w", err)
	}
	b.undo.Add(func() { _ = os.RemoveAll(dir) })
	spec, err := b.spec(dir, kit)
	if err != nil {
		return nil, err
	}
	spec.Cmdline = "quiet loglevel=4 panic=-1 " + cmdline
	if b.Machine, err = o.Engine.Start(ctx, spec); err != nil {
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

func (b *bare) spec(dir string, kit bareKit) (engine.Spec, error) {
	disk := filepath.Join(dir, "disk.ext4")
	if err := image.NewDisk(disk, api.DefaultDiskMiB); err != nil {
		return engine.Spec{}, err
	}
	spec := engine.Spec{
		Name: "bench", CPUs: api.DefaultCPUs, MemoryMiB: api.DefaultMemoryMiB, Accel: kit.accel,
		Console: io.Discard, MaxFileBytes: api.DefaultDiskMiB << 20,
	}
	for _, f := range []struct {
		path string
		flag int
		use  func(*os.File)
	}{
		{kit.boot.Kernel, os.O_RDONLY, func(f *os.File) { spec.Kernel = f }},
		{kit.boot.Initrd, os.O_RDONLY, func(f *os.File) { spec.Initrd = f }},
		{kit.img.Path, os.O_RDONLY, func(f *os.File) {
			spec.Drives = append(spec.Drives, engine.Drive{ID: "image", File: f, ReadOnly: true})
		}},
		{disk, os.O_RDWR, func(f *os.File) { spec.Drives = append(spec.Drives, engine.Drive{ID: "disk", File: f}) }},
		{kit.boot.Modules, os.O_RDONLY, func(f *os.File) {
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
	if kit.network {
		spec.NIC = &engine.NIC{MAC: control.GuestMAC(), MTU: 1500, Unfiltered: true}
	} else if err := b.deafCard(&spec); err != nil {
		return spec, err
	}
	return spec, b.agentPort(dir, &spec)
}

// agentPort gives the machine its agent's port.
func (b *bare) agentPort(dir string, spec *engine.Spec) error {
	b.agentPath = filepath.Join(dir, "agent.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.agentPath, Net: "unix"})
	if err != nil {
		return errdefs.Host.Errorf("agent socket: %w", err)
	}
	defer func() { _ = l.Close() }()
	l.SetUnlinkOnClose(false)
	if spec.AgentListener, err = l.File(); err != nil {
		return errdefs.Host.Errorf("agent socket: %w", err)
	}
	b.undo.Add(func() { _ = spec.AgentListener.Close() })
	spec.AgentPath = b.agentPath
	return nil
}

// deafCard gives the machine a network card that nobody reads.
func (b *bare) deafCard(spec *engine.Spec) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return errdefs.Host.Errorf("network socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "net"), os.NewFile(uintptr(pair[1]), "nic") //nolint:gosec // descriptors are small
	b.undo.Add(func() { _ = ours.Close(); _ = theirs.Close() })
	spec.NIC = &engine.NIC{FD: theirs, MAC: control.GuestMAC(), MTU: control.MTU}
	return nil
}
