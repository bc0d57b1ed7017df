package firecracker

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/firecracker/fcapi"
	"github.com/smolvm/smolvm/internal/engine/firecracker/rundir"
	"github.com/smolvm/smolvm/internal/engine/kvm"
	"github.com/smolvm/smolvm/internal/engine/monitor"
	"github.com/smolvm/smolvm/internal/engine/snapshot"
	"github.com/smolvm/smolvm/internal/guest/link"
	"github.com/smolvm/smolvm/internal/sys/child"
	"github.com/smolvm/smolvm/internal/sys/launch"
	"github.com/smolvm/smolvm/internal/sys/tail"
	"github.com/smolvm/smolvm/internal/sys/undo"
)

const (
	// maxFiles is the monitor's RLIMIT_NOFILE: what it inherits and opens, and a socket per connection to the guest.
	maxFiles = 256
	// maxCPUs is what Firecracker gives a guest.
	maxCPUs = 32
	// tapName is the card's in its own network namespace, so that all have the same.
	tapName = "tap0"
)

// Start implements engine.Engine.
func (e *Engine) Start(ctx context.Context, spec engine.Spec) (engine.Machine, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	return e.start(ctx, &spec, "")
}

// Restore implements engine.Restorer.
func (e *Engine) Restore(ctx context.Context, spec engine.Spec, dir string) (engine.Machine, error) {
	if err := spec.ValidateRestore(); err != nil {
		return nil, err
	}
	spec.Kernel, spec.Initrd, spec.Cmdline = nil, nil, "" // they are in the memory
	return e.start(ctx, &spec, dir)
}

// start starts a monitor and what it is to run: spec, or the snapshot in dir.
func (e *Engine) start(ctx context.Context, spec *engine.Spec, dir string) (_ engine.Machine, err error) {
	caps, err := e.Probe(ctx)
	if err != nil {
		return nil, err
	}
	if err := possible(caps, spec); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, errdefs.Timeout.Errorf("start Firecracker: %w", err)
	}
	s := &starting{spec: spec, caps: caps, libraries: e.programs.Libraries(caps.Path), log: &tail.Buffer{}, before: e.before}
	defer s.theirs.Run() // what only the monitor needs
	if dir != "" {
		if s.from, err = snapshot.Open(dir); err != nil {
			return nil, err
		}
		s.theirs.Add(s.from.Close)
		if err := s.from.Fits(spec, name, caps.Version); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			s.ours.Run()
		}
	}()
	if err := s.open(); err != nil {
		return nil, errdefs.Host.Errorf("what the monitor needs: %w", err)
	}
	m, err := s.run(ctx, e)
	if err != nil {
		return nil, errdefs.ClassOf(err).Errorf("start Firecracker %s: %w", caps.Version, err).WithRemedy("smolvm doctor")
	}
	return m, nil
}

// possible refuses what Firecracker has not.
func possible(caps engine.Caps, spec *engine.Spec) error {
	switch {
	case spec.Accel != kvm.Name:
		return errdefs.Invalid.Errorf("Firecracker has no accelerator %q: it needs KVM", spec.Accel)
	case spec.CPUs > maxCPUs:
		return errdefs.Invalid.Errorf("%d CPUs: Firecracker gives a guest up to %d", spec.CPUs, maxCPUs)
	case spec.NIC != nil && spec.NIC.Take == nil:
		return errdefs.Invalid.Errorf("Firecracker's network card is a TAP, and nobody takes its other end")
	}
	if a := caps.Accels[0]; a.Missing != "" {
		return errdefs.Host.Errorf("accelerator %s: %s", a.Name, a.Missing).WithRemedy("%s", a.Remedy)
	}
	return nil
}

// starting collects what a monitor is given.
type starting struct {
	spec   *engine.Spec
	caps   engine.Caps
	from   *snapshot.Snapshot            // what it goes on from; nil: it boots
	before func(pid int, request string) // of each call, for tests; may be nil

	libraries monitor.Libraries // none for a released program

	files  []*os.File // the monitor's, from launch.FirstFile on
	kernel int        // 0: none
	initrd int        // 0: none
	drives []int
	logFD  int
	meters int

	tap     int      // which of files the card's other end comes over
	card    net.Conn // our end of that
	dir     *rundir.Dir
	console *os.File // our ends
	logs    *os.File
	metrics *os.File
	stdout  *os.File // the console's other end
	log     *tail.Buffer

	record  snapshot.Record
	scratch scratch
	state   int // of the snapshot that it goes on from
	memory  int

	ours, theirs undo.Stack
	owned        undo.Stack // what the monitor owns while it lives
}

// give has the monitor inherit f and returns its number there.
func (s *starting) give(f *os.File) int {
	s.files = append(s.files, f)
	return launch.FirstFile + len(s.files) - 1
}

// open makes and numbers what the monitor inherits. It has no way to take a descriptor, so that it opens each again, by
// /proc/self/fd. The drives come first: their numbers are in its snapshots, and must be the same in all that go on from one.
func (s *starting) open() (err error) {
	if s.dir, err = rundir.Make(s.spec.AgentPath, s.spec.UID); err != nil {
		return fmt.Errorf("a directory for its sockets: %w", err)
	}
	s.ours.Add(s.dir.Remove)
	s.ours.Add(s.owned.Run)
	for _, d := range s.spec.Drives {
		if err := s.own(d.File, d.ReadOnly); err != nil {
			return fmt.Errorf("drive %s: %w", d.ID, err)
		}
		s.drives = append(s.drives, s.give(d.File))
	}
	if s.spec.Kernel != nil {
		s.kernel = s.give(s.spec.Kernel)
	}
	if s.spec.Initrd != nil {
		s.initrd = s.give(s.spec.Initrd)
	}
	if err := s.snapshots(); err != nil {
		return err
	}
	if s.logs, s.logFD, err = s.pipe("log"); err != nil {
		return err
	}
	if s.metrics, s.meters, err = s.pipe("metrics"); err != nil {
		return err
	}
	if err := s.network(); err != nil {
		return err
	}
	if s.console, s.stdout, err = os.Pipe(); err != nil {
		return fmt.Errorf("pipe for its console: %w", err)
	}
	s.theirs.Add(func() { _ = s.stdout.Close() })
	s.ours.Add(func() { _ = s.console.Close() })
	for _, f := range s.spec.Inherit {
		s.give(f)
	}
	return nil
}

// network makes the sockets over which the card's other end comes.
func (s *starting) network() error {
	if s.spec.NIC == nil {
		return nil
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("sockets for its network card: %w", err)
	}
	mine, its := os.NewFile(uintptr(fds[0]), "card"), os.NewFile(uintptr(fds[1]), "card")
	s.theirs.Add(func() { _, _ = mine.Close(), its.Close() })
	if s.card, err = net.FileConn(mine); err != nil { // a copy
		return fmt.Errorf("sockets for its network card: %w", err)
	}
	s.theirs.Add(func() { _ = s.card.Close() })
	s.tap = s.give(its) - launch.FirstFile
	return nil
}

// take hands the card's other end over.
func (s *starting) take() error {
	if s.spec.NIC == nil {
		return nil
	}
	wire, err := launch.ReceiveFile(s.card.(*net.UnixConn), "wire")
	if err != nil {
		return err
	}
	return s.spec.NIC.Take(wire)
}

// own lets a monitor with a user id of its own open a file for writing again, and takes that back when it is gone: the number
// may be another VM's next.
func (s *starting) own(f *os.File, readOnly bool) error {
	if s.spec.UID == 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if readOnly && st.Mode&0o004 != 0 {
		return nil
	}
	if readOnly { // it may be anybody's: its owner and its mode are not ours to change
		return errdefs.Denied.Errorf("the monitor, which runs as a user of its own, may not read %s", f.Name()).WithRemedy("chmod o+r %s", f.Name())
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0) // the caller may close its own
	if err != nil {
		return err
	}
	held := os.NewFile(uintptr(fd), f.Name())
	s.owned.Add(func() { _ = held.Close() })
	if err := f.Chown(int(s.spec.UID), int(s.spec.UID)); err != nil {
		return err
	}
	s.owned.Add(func() { _ = held.Chown(int(st.Uid), int(st.Gid)) })
	return nil
}

// pipe makes a pipe whose end for writing the monitor opens again.
func (s *starting) pipe(name string) (mine *os.File, number int, err error) {
	mine, its, err := os.Pipe()
	if err != nil {
		return nil, 0, fmt.Errorf("pipe for its %s: %w", name, err)
	}
	s.theirs.Add(func() { _ = its.Close() })
	s.ours.Add(func() { _ = mine.Close() })
	if s.spec.UID != 0 {
		if err := its.Chown(int(s.spec.UID), int(s.spec.UID)); err != nil {
			return nil, 0, fmt.Errorf("pipe for its %s: %w", name, err)
		}
	}
	return mine, s.give(its), nil
}

// plan says what the monitor is, and what it can still reach by path.
func (s *starting) plan() (launch.Plan, error) {
	p := launch.Plan{
		Program: s.caps.Path, Env: child.Environ(), Files: s.files, UID: s.spec.UID, Group: s.spec.Group, WorkDir: s.dir.Path,
		Args: []string{
			"--api-sock", rundir.APISocket, "--level", "Info",
			"--log-path", fdPath(s.logFD), "--metrics-path", fdPath(s.meters),
		},
		Root:       true,
		ReadDirs:   s.libraries.Dirs,
		ReadFiles:  append([]string{"/etc/ld.so.cache"}, s.libraries.Files...),
		WriteFiles: []string{"/dev/null", fdPath(s.scratch.stateFD), fdPath(s.scratch.memoryFD)},
		Devices:    []string{kvm.Device},
		MaxFiles:   maxFiles, MaxFileBytes: s.maxFileBytes(), MaxMemory: s.spec.MaxMemory(),
	}
	for _, n := range []int{s.kernel, s.initrd, s.state, s.memory} {
		if n != 0 {
			p.ReadFiles = append(p.ReadFiles, fdPath(n))
		}
	}
	for i, d := range s.spec.Drives {
		if d.ReadOnly {
			p.ReadFiles = append(p.ReadFiles, fdPath(s.drives[i]))
		} else {
			p.WriteFiles = append(p.WriteFiles, fdPath(s.drives[i]))
		}
	}
	if s.spec.NIC != nil {
		p.TAP = &launch.TAP{Name: tapName, MTU: s.spec.NIC.MTU, Socket: s.tap}
		p.Devices = append(p.Devices, launch.TunDevice)
	}
	if p.UID != 0 {
		groups, err := kvm.Groups(p.Devices...)
		if err != nil {
			return p, err
		}
		p.Groups = groups
	}
	return p, nil
}

// run starts the monitor, tells it what to run, and starts the guest.
func (s *starting) run(ctx context.Context, e *Engine) (*machine, error) {
	p, err := s.launch(ctx)
	if err != nil {
		return nil, errdefs.Engine.Errorf("%w", err)
	}
	taken := s.take()
	s.theirs.Run()
	if s.record, err = snapshot.Of(s.spec, p.Record); err != nil {
		p.Child.Kill()
		return nil, err
	}
	m := newMachine(s, p, e.opts.Log)
	s.ours.Release() // the machine has it all, and gives it back at its end
	err = taken
	var api *rundir.Socket
	if err == nil {
		api, err = s.dir.Socket(ctx, p.Child.Done(), rundir.APISocket)
	}
	if err == nil {
		m.sockets = append(m.sockets, api)
		err = api.Listens(ctx, p.Child.Done())
	}
	if err == nil {
		m.api = fcapi.New(api.Dial)
		if s.before != nil {
			m.api.Before = func(request string) { s.before(p.Child.PID(), request) }
		}
		err = s.tell(ctx, m.api)
	}
	if err == nil {
		if m.vsock, err = s.dir.Socket(ctx, p.Child.Done(), rundir.VsockSocket); err == nil {
			m.sockets = append(m.sockets, m.vsock)
		}
	}
	if err == nil && s.from == nil {
		err = m.api.Start(ctx)
	}
	if err != nil {
		class := errdefs.ClassOf(err)
		if class == errdefs.Internal || class == errdefs.Invalid { // the caller's part was looked at before
			class = errdefs.Engine
		}
		err = p.Blame(err)
		m.abandon()
		return nil, class.Errorf("%w", m.said(err))
	}
	return m, nil
}

// launch starts the monitor and returns once the launcher has become it.
func (s *starting) launch(ctx context.Context) (process, error) {
	plan, err := s.plan()
	if err != nil {
		return process{}, err
	}
	p, err := monitor.Launch(ctx, plan, s.stdout, engine.Handle{Engine: name, EngineVer: s.caps.Version, Accel: s.spec.Accel})
	return process{Process: p, log: s.log}, err
}

// process is a monitor that runs, with what it logs.
type process struct {
	monitor.Process
	log *tail.Buffer
}

// said adds to err what the monitor complained about.
func (p process) said(err error) error {
	if lines := p.words(5); lines != "" {
		return fmt.Errorf("%w: %s", err, lines)
	}
	return err
}

func (p process) words(n int) string {
	return strings.TrimSpace(p.log.Lines(n) + "\n" + p.Stderr.Lines(n))
}

// tell tells the monitor what to run.
func (s *starting) tell(ctx context.Context, api *fcapi.Client) error {
	v, err := api.Version(ctx)
	if err != nil {
		return err
	}
	if v.String() != s.caps.Version {
		return errdefs.Engine.Errorf("the program said that it is %s, and its API that it is %s", s.caps.Version, v)
	}
	if s.from != nil {
		return s.load(ctx, api)
	}
	return s.configure(ctx, api, fcapi.FeaturesOf(v))
}

// driveOf is a drive as the monitor is told of it, which has it as fd.
func driveOf(d engine.Drive, fd int) fcapi.Drive {
	drive := fcapi.Drive{ID: apiID(d.ID), Path: fdPath(fd), ReadOnly: d.ReadOnly, Cache: fcapi.CacheWriteback, Limiter: limiter(d.Limit)}
	if d.Disposable {
		drive.Cache = fcapi.CacheUnsafe
	}
	return drive
}

// configure makes the machine. The order of the calls is Firecracker's: the machine first, then its devices.
func (s *starting) configure(ctx context.Context, api *fcapi.Client, has fcapi.Features) error {
	if err := api.Machine(ctx, fcapi.MachineConfig{CPUs: s.spec.CPUs, MemoryMiB: s.spec.MemoryMiB}); err != nil {
		return err
	}
	boot := fcapi.BootSource{Kernel: fdPath(s.kernel), Cmdline: cmdline(s.spec)}
	if s.initrd != 0 {
		boot.Initrd = fdPath(s.initrd)
	}
	if err := api.Boot(ctx, boot); err != nil {
		return err
	}
	for i, d := range s.spec.Drives {
		if err := api.Drive(ctx, driveOf(d, s.drives[i])); err != nil {
			return err
		}
	}
	if n := s.spec.NIC; n != nil {
		card := fcapi.NetworkInterface{ID: "eth0", HostDevice: tapName, MAC: n.MAC.String()}
		if has.MTU {
			card.MTU = n.MTU
		}
		if err := api.Network(ctx, card); err != nil {
			return err
		}
	}
	// Each guest has its own device, whose number says nothing: all may have the same.
	if err := api.Vsock(ctx, fcapi.Vsock{CID: link.GuestCID, Path: rundir.VsockSocket}); err != nil {
		return err
	}
	return api.Entropy(ctx)
}

// limiter is a drive's rate. A second's worth may come at once.
func limiter(l engine.IOLimit) *fcapi.RateLimiter {
	if l == (engine.IOLimit{}) {
		return nil
	}
	bucket := func(perSecond int64) *fcapi.TokenBucket {
		if perSecond == 0 {
			return nil
		}
		return &fcapi.TokenBucket{Size: perSecond, RefillMs: 1000}
	}
	return &fcapi.RateLimiter{Bandwidth: bucket(l.BytesPerSecond), Ops: bucket(l.OpsPerSecond)}
}

// cmdline is the kernel's command line: first what this machine needs, then what the caller wants. There is no PCI, and of
// a keyboard just the line that resets. The guest cannot see the drives' ids, and is told them in their order.
func cmdline(s *engine.Spec) string {
	ids := make([]string, len(s.Drives))
	for i, d := range s.Drives {
		ids[i] = d.ID
	}
	parts := []string{
		"console=ttyS0", "reboot=k", "panic=-1", "pci=off", "i8042.noaux", "i8042.nomux", "i8042.dumbkbd",
		link.VsockParam, link.DrivesParam + strings.Join(ids, ","),
	}
	if s.Cmdline != "" {
		parts = append(parts, s.Cmdline)
	}
	return strings.Join(parts, " ")
}

// apiID is a drive's name in the API, which takes no hyphen.
func apiID(id string) string { return strings.ReplaceAll(id, "-", "_") }

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// reason says what an exit code of Firecracker's means.
func reason(code int) string {
	switch code {
	case 148:
		return "its own filter of system calls stopped it"
	case 149, 150:
		return "it failed with " + unix.SignalName(map[int]unix.Signal{149: unix.SIGBUS, 150: unix.SIGSEGV}[code])
	case 151:
		return "a file became too large for its limit"
	case 152:
		return "its configuration is wrong"
	case 153:
		return "its arguments are wrong"
	}
	return fmt.Sprintf("it ended with code %d", code)
}
