package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/kvm"
	"github.com/smolvm/smolvm/internal/engine/monitor"
	"github.com/smolvm/smolvm/internal/engine/qemu/qmp"
	"github.com/smolvm/smolvm/internal/sys/child"
	"github.com/smolvm/smolvm/internal/sys/launch"
	"github.com/smolvm/smolvm/internal/sys/tsc"
	"github.com/smolvm/smolvm/internal/sys/undo"
)

// maxFiles is the monitor's RLIMIT_NOFILE: what it inherits, and what it makes for itself.
const maxFiles = 256

// Start implements engine.Engine.
func (e *Engine) Start(ctx context.Context, spec engine.Spec) (_ engine.Machine, err error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if err := checkKernel(spec.Kernel); err != nil {
		return nil, err
	}
	caps, err := e.Probe(ctx)
	if err != nil {
		return nil, err
	}
	if err := accelUsable(caps, spec.Accel); err != nil {
		return nil, err
	}
	khz, err := e.tscKHz(ctx, spec.Accel)
	if err != nil {
		return nil, err
	}
	s := &starting{spec: &spec, caps: caps, libraries: e.programs.Libraries(caps.Path)}
	defer s.theirs.Run() // what only the monitor needs
	defer func() {
		if err != nil {
			s.ours.Run()
		}
	}()
	if err := s.open(); err != nil {
		return nil, errdefs.Host.Errorf("what the monitor inherits: %w", err)
	}
	p, err := s.launch(ctx, khz)
	if err != nil {
		return nil, errdefs.Engine.Errorf("start QEMU %s: %w", caps.Version, err).WithRemedy("smolvm doctor")
	}
	m := newMachine(&spec, p, e.opts.Log)
	q, err := qmp.Open(ctx, s.qmp, m.event)
	if err != nil {
		err = p.Blame(err)
		p.Child.Kill()
		return nil, errdefs.ClassOf(err).Errorf("start QEMU %s: %w", caps.Version, p.Said(err)).WithRemedy("smolvm doctor")
	}
	m.watch(q, s.console, spec.Console)
	return m, nil
}

func accelUsable(caps engine.Caps, name string) error {
	i := slices.IndexFunc(caps.Accels, func(a engine.Accel) bool { return a.Name == name })
	if i < 0 {
		return errdefs.Invalid.Errorf("QEMU %s has no accelerator %q", caps.Version, name)
	}
	if a := caps.Accels[i]; a.Missing != "" {
		return errdefs.Host.Errorf("accelerator %s: %s", name, a.Missing).WithRemedy("%s", a.Remedy)
	}
	return nil
}

// tscKHz is the host counter's rate where the guest sees that counter and could not measure it on a busy host.
func (e *Engine) tscKHz(ctx context.Context, accel string) (khz uint64, err error) {
	if accel != accelTCG {
		return 0, nil
	}
	if e.opts.CacheDir == "" {
		khz, err = tsc.Measure(ctx)
	} else {
		khz, err = tsc.KHz(ctx, filepath.Join(e.opts.CacheDir, "tsc.json"))
	}
	if errors.Is(err, tsc.ErrUnsupported) {
		return 0, nil
	}
	if err != nil {
		return 0, errdefs.Host.Errorf("measure the time stamp counter: %w", err)
	}
	return khz, nil
}

// starting collects what a monitor inherits.
type starting struct {
	spec *engine.Spec
	caps engine.Caps

	libraries monitor.Libraries

	files   []*os.File // the monitor's, from launch.FirstFile on
	fds     fds
	qmp     net.Conn // our ends
	console net.Conn

	ours, theirs undo.Stack
}

// give has the monitor inherit f and returns its number there.
func (s *starting) give(f *os.File) int {
	s.files = append(s.files, f)
	return launch.FirstFile + len(s.files) - 1
}

// open makes and numbers the descriptors.
func (s *starting) open() (err error) {
	s.fds.kernel = s.give(s.spec.Kernel)
	if s.spec.Initrd != nil {
		s.fds.initrd = s.give(s.spec.Initrd)
	}
	if s.qmp, s.fds.qmp, err = s.pair("qmp"); err != nil {
		return err
	}
	if s.console, s.fds.console, err = s.pair("console"); err != nil {
		return err
	}
	for _, d := range s.spec.Drives {
		n, err := s.drive(d)
		if err != nil {
			return fmt.Errorf("drive %s: %w", d.ID, err)
		}
		s.fds.drives = append(s.fds.drives, n)
	}
	if s.spec.AgentListener != nil {
		s.fds.agent = s.give(s.spec.AgentListener)
	}
	if s.spec.NIC != nil && !s.spec.NIC.Unfiltered {
		s.fds.nic = s.give(s.spec.NIC.FD)
	}
	for _, f := range s.spec.Inherit {
		s.give(f)
	}
	return nil
}

// drive gives a drive's descriptors. A writable one needs one for reading alone beside the other.
func (s *starting) drive(d engine.Drive) (driveFDs, error) {
	if d.ReadOnly {
		return driveFDs{id: d.ID, read: s.give(d.File), limit: d.Limit}, nil
	}
	r, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", d.File.Fd()))
	if err != nil {
		return driveFDs{}, err
	}
	s.theirs.Add(func() { _ = r.Close() })
	return driveFDs{id: d.ID, read: s.give(r), write: s.give(d.File), limit: d.Limit, disposable: d.Disposable}, nil
}

// pair makes a stream between us and the monitor.
func (s *starting) pair(name string) (net.Conn, int, error) {
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("socket pair %s: %w", name, err)
	}
	mine, its := os.NewFile(uintptr(fd[0]), name), os.NewFile(uintptr(fd[1]), name)
	s.theirs.Add(func() { _, _ = mine.Close(), its.Close() })
	conn, err := net.FileConn(mine) // a copy
	if err != nil {
		return nil, 0, fmt.Errorf("socket pair %s: %w", name, err)
	}
	s.ours.Add(func() { _ = conn.Close() })
	return conn, s.give(its), nil
}

// plan says what the monitor is, and what it can still reach by path: its own program's files and nothing of ours.
func (s *starting) plan(khz uint64) (launch.Plan, error) {
	prefix := filepath.Dir(filepath.Dir(s.caps.Path)) // QEMU looks for its firmware beside its program first
	p := launch.Plan{
		Program: s.caps.Path, Args: argv(s.spec, s.fds, khz), Env: child.Environ(), Files: s.files, UID: s.spec.UID, Group: s.spec.Group, Root: true,
		ReadDirs:   append([]string{"/usr/share/qemu", "/usr/share/seabios", filepath.Join(prefix, "share/qemu"), filepath.Join(prefix, "share/seabios")}, s.libraries.Dirs...),
		ReadFiles:  slices.Concat([]string{"/etc/ld.so.cache", fdPath(s.fds.kernel)}, s.libraries.Files, modules(prefix)),
		WriteFiles: []string{"/dev/null"},
		MaxFiles:   maxFiles, MaxFileBytes: s.spec.MaxFileBytes, MaxMemory: s.spec.MaxMemory(),
	}
	if s.fds.initrd != 0 {
		p.ReadFiles = append(p.ReadFiles, fdPath(s.fds.initrd))
	}
	if s.spec.NIC != nil && s.spec.NIC.Unfiltered {
		p.Network, p.Refused = true, "its network is not filtered"
	}
	if s.spec.Accel != kvm.Name {
		return p, nil
	}
	p.Devices = []string{kvm.Device}
	if p.UID != 0 {
		groups, err := kvm.Groups(kvm.Device)
		if err != nil {
			return p, err
		}
		p.Groups = groups
	}
	return p, nil
}

// modules are the parts of accelerators that a distribution's QEMU loads when it runs.
func modules(prefix string) (files []string) {
	for _, dir := range []string{"lib", "lib64", "lib/*"} {
		found, err := filepath.Glob(filepath.Join(prefix, dir, "qemu/accel-*.so"))
		if err == nil { // else the prefix is no pattern
			files = append(files, found...)
		}
	}
	return files
}

// launch starts the monitor and returns once the launcher has become it.
func (s *starting) launch(ctx context.Context, khz uint64) (monitor.Process, error) {
	plan, err := s.plan(khz)
	if err != nil {
		return monitor.Process{}, err
	}
	return monitor.Launch(ctx, plan, nil, engine.Handle{Engine: name, EngineVer: s.caps.Version, Accel: s.spec.Accel})
}
