package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/sys/bootargs"
	"github.com/smolvm/smolvm/internal/sys/cgroup"
	"github.com/smolvm/smolvm/internal/sys/launch"
	"github.com/smolvm/smolvm/internal/sys/lock"
	"github.com/smolvm/smolvm/internal/sys/plainfile"
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
	cfg, plan := s.config.Config, s.in.Plan
	args, err := bootargs.Clean(cfg.BootArgs)
	if err != nil {
		return engine.Spec{}, errdefs.Invalid.Errorf("boot args: %w", err)
	}
	spec := engine.Spec{
		Name: s.id, CPUs: cfg.CPUs, MemoryMiB: cfg.MemoryMiB, Cmdline: strings.TrimSpace(kernelCmdline + " " + args), Console: s.console,
		Inherit: []*os.File{s.in.Lock}, MaxFileBytes: int64(cfg.DiskMiB) << 20,
	}
	image := func(id string) func(*os.File) {
		return func(f *os.File) { spec.Drives = append(spec.Drives, engine.Drive{ID: id, File: f, ReadOnly: true}) }
	}
	disk := func(f *os.File) {
		limit := engine.IOLimit{BytesPerSecond: int64(cfg.DiskRateMiB) << 20, OpsPerSecond: int64(cfg.DiskIOPS)}
		// A VM that goes with its client has nothing that outlives a crash of the host.
		gone := s.snapshot().Owner == api.OwnerClient
		spec.Drives = append(spec.Drives, engine.Drive{ID: "disk", File: f, Limit: limit, Disposable: gone})
	}
	// The guest sees the drives in this order.
	for _, f := range []struct {
		path  string
		given bool // by the user
		flag  int
		use   func(*os.File)
	}{
		{plan.Kernel, cfg.KernelPath != "", os.O_RDONLY, func(f *os.File) { spec.Kernel = f }},
		{plan.Initrd, false, os.O_RDONLY, func(f *os.File) { spec.Initrd = f }},
		{plan.Image, cfg.RootfsPath != "", os.O_RDONLY, image("image")},
		{s.store.Path(s.id, store.DiskFile), false, os.O_RDWR, disk},
		{plan.Modules, false, os.O_RDONLY, image("modules")},
	} {
		if f.path == "" {
			continue // a kernel that is not ours has no modules
		}
		open := plainfile.Own
		if f.given {
			open = plainfile.Open
		}
		file, err := open(f.path, f.flag)
		if err != nil {
			return spec, errdefs.Image.Errorf("open what the VM boots from: %w", err).WithRemedy("smolvm doctor")
		}
		s.undo.Add(func() { _ = file.Close() })
		f.use(file)
	}
	if err := s.takeUID(&spec); err != nil {
		return spec, err
	}
	return spec, s.takeGroup(&spec)
}

// takeGroup makes the control group that bounds what the monitor takes of the host, where one can be had: its memory and its processes,
// which limits of their own bound, too, but for what no such limit counts. Only a share of a processor is bounded by nothing else. The
// group is written down first, so that it is found even if we are killed.
func (s *supervisor) takeGroup(spec *engine.Spec) error {
	percent := s.config.Config.CPUShare
	limits := cgroup.Limits{CPUPercent: percent, Memory: spec.MaxMemory(), Processes: launch.MaxThreads}
	parent, err := cgroup.Find(limits)
	if err != nil && percent == 0 {
		s.log.Debug("the monitor has no control group", "why", err)
		return nil
	}
	if err != nil {
		limits = cgroup.Limits{CPUPercent: percent}
		parent, err = cgroup.Find(limits)
	}
	if err != nil {
		return errdefs.Host.Errorf("a share of %d %% cannot be enforced: %w", percent, err).WithRemedy("smolvm doctor")
	}
	name := fmt.Sprintf("smolvm-%s-%d", s.id, os.Getpid())
	if err := s.save(func(st *store.State) { st.Cgroup = parent.Path(name) }); err != nil {
		return err
	}
	if s.group, err = parent.Make(name, limits); err != nil {
		return errdefs.Host.Errorf("make the monitor's control group: %w", err).WithRemedy("smolvm doctor")
	}
	s.undo.Add(func() {
		if err := s.group.Remove(); err != nil {
			s.log.Warn("a control group is left", "error", err)
		}
	})
	spec.Group = s.group.File()
	return nil
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
	spec.NIC = &engine.NIC{FD: s.uplink.NIC(), Take: s.uplink.Take, MAC: control.GuestMAC(), MTU: control.MTU}
	return back.Run, nil
}

func uidLock(n int) string { return fmt.Sprintf("uid-%d", n) }
