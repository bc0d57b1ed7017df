package supervisor

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/sys/launch"
	"github.com/smolvm/smolvm/internal/sys/lock"
	"github.com/smolvm/smolvm/internal/sys/undo"
)

const (
	// A notice is the least that is printed: the emulated console is slow, and what matters is there.
	kernelCmdline = "loglevel=6"

	// The monitors' user ids begin at uidBase; one of maxUIDs is taken per running VM.
	uidBase = 1_900_000_000
	maxUIDs = 1 << 16
)

// spec is the machine in plain facts; what belongs to one attempt only (accelerator, sockets) is left out.
func (s *supervisor) spec() (engine.Spec, error) {
	cfg, plan := s.config.Config, s.in.plan
	spec := engine.Spec{
		Name: s.id, CPUs: cfg.CPUs, MemoryMiB: cfg.MemoryMiB, Cmdline: kernelCmdline, Console: s.console,
		Inherit: []*os.File{s.in.lock}, MaxFileBytes: int64(cfg.DiskMiB) << 20,
	}
	drive := func(id string, readOnly bool) func(*os.File) {
		return func(f *os.File) { spec.Drives = append(spec.Drives, engine.Drive{ID: id, File: f, ReadOnly: readOnly}) }
	}
	// The guest sees the drives in this order.
	for _, f := range []struct {
		path string
		flag int
		use  func(*os.File)
	}{
		{plan.Kernel, os.O_RDONLY, func(f *os.File) { spec.Kernel = f }},
		{plan.Initrd, os.O_RDONLY, func(f *os.File) { spec.Initrd = f }},
		{plan.Image, os.O_RDONLY, drive("image", true)},
		{s.store.Path(s.id, store.DiskFile), os.O_RDWR, drive("disk", false)},
		{plan.Modules, os.O_RDONLY, drive("modules", true)},
	} {
		file, err := os.OpenFile(f.path, f.flag|unix.O_NOFOLLOW, 0)
		if err != nil {
			return spec, errdefs.Image.Errorf("open what the VM boots from: %w", err).WithRemedy("smolvm doctor")
		}
		s.undo.Add(func() { _ = file.Close() })
		f.use(file)
	}
	return spec, s.takeUID(&spec)
}

// takeUID gives the monitor a user id of its own where we can: a number whose lock nobody holds, by preference the one that
// the VM had before.
func (s *supervisor) takeUID(spec *engine.Spec) error {
	if !launch.IsRoot() {
		return nil
	}
	former := s.snapshot().UID
	for i := range maxUIDs {
		n := (former + i) % maxUIDs
		l, err := lock.Try(filepath.Join(s.store.Home(), "locks", uidLock(n)))
		if err != nil {
			continue
		}
		s.undo.Add(func() { _ = l.Close() })
		// The monitor holds it too, so that the number is free only when it is gone.
		spec.Inherit = append(spec.Inherit, l.File())
		spec.UID = uint32(uidBase + n)
		return s.save(func(st *store.State) { st.UID = n })
	}
	return errdefs.Exhausted.Errorf("no user id is free for the monitor: %d VMs run", maxUIDs).WithRemedy("smolvm ls")
}

// sockets gives an attempt its agent socket and the network card. The machine duplicates what it needs; release closes
// ours.
func (s *supervisor) sockets(spec *engine.Spec) (release func(), err error) {
	var back undo.Stack
	defer func() {
		if err != nil {
			back.Run()
		}
	}()
	l, err := s.dir.Listen(store.AgentSocket)
	if err != nil {
		return nil, errdefs.Host.Errorf("make the agent's socket: %w", err)
	}
	back.Add(func() { _ = l.Close() })
	if spec.AgentListener, err = l.File(); err != nil {
		return nil, errdefs.Host.Errorf("make the agent's socket: %w", err)
	}
	back.Add(func() { _ = spec.AgentListener.Close() })
	spec.AgentPath = s.dir.Path(store.AgentSocket)
	spec.NIC = &engine.NIC{FD: s.uplink.NIC(), MAC: control.GuestMAC(), MTU: control.MTU}
	return back.Run, nil
}

func uidLock(n int) string { return fmt.Sprintf("uid-%d", n) }
