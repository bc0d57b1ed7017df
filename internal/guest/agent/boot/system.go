package boot

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/guest/agent/command"
	guestlink "github.com/smolvm/smolvm/internal/guest/link"
	"github.com/smolvm/smolvm/internal/guest/proto"
)

// System is the guest that the agent has booted. Its methods are not called at once.
type System struct {
	log     *slog.Logger
	drives  map[string]string
	release string
	runner  *command.Runner
	disk    *os.File // the writable file system's root, nil without a disk
	conf    *proto.ConfigureRequest
	logins  time.Time    // when the SSH service was started; zero: it was not
	awaited func() error // waits for the SSH service, which begins anew; nil: nobody has to
}

const (
	imageDir = "/image"
	diskDir  = "/disk"
	rootDir  = "/new"
	proc     = "/proc"
)

// Prepare finds the drives and mounts the image, read only.
func Prepare(log *slog.Logger) (*System, error) {
	s := &System{log: log, drives: guestlink.FindDrives()}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err == nil {
		s.release = unix.ByteSliceToString(uts.Release[:])
	}
	if dev, ok := s.drives["image"]; ok {
		if err := mountDevice(dev, imageDir, unix.MS_RDONLY|unix.MS_NOATIME, "noload"); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func mountDevice(dev, at string, flags uintptr, opts string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(dev, at, "ext4", flags, opts); err != nil {
		return fmt.Errorf("mount %s on %s: %w", dev, at, err)
	}
	return nil
}

// Configure makes the guest who it is to be and returns the size of its disk and what runs its commands.
func (s *System) Configure(c *proto.ConfigureRequest) (diskBytes int64, r *command.Runner, err error) {
	if s.runner != nil {
		return 0, nil, errors.New("the guest is configured")
	}
	if err := s.SetClock(c.GetWallClockNs()); err != nil {
		s.log.Warn("wall clock", "err", err)
	}
	if seed := c.GetSeed(); len(seed) > 0 {
		if err := addEntropy(seed); err != nil {
			return 0, nil, err
		}
	}
	if s.drives["image"] != "" && s.drives["disk"] != "" {
		if err := s.switchRoot(c.GetDiskUuid()); err != nil {
			return 0, nil, err
		}
	}
	for _, m := range lateMounts() {
		if err := mount(m); err != nil {
			return 0, nil, err
		}
	}
	_ = os.Mkdir("/run/lock", 0o1777)
	_ = os.Chmod("/run/lock", 0o1777|os.ModeSticky)
	if err := s.mountModules(); err != nil {
		return 0, nil, err
	}
	if err := s.bindPlainDirs(); err != nil {
		return 0, nil, err
	}
	s.tune()
	if err := identify(c.GetIdentity()); err != nil {
		s.log.Warn("identity", "err", err) // a read-only /etc of the user's
	}
	if err := s.network(c.GetNetwork()); err != nil {
		return 0, nil, err
	}
	if err := authorize(c.GetAuthorizedKeys()); err != nil {
		return 0, nil, err
	}
	if err := trust("/", c.GetAuthorities()); err != nil {
		s.log.Warn("the host's certificates", "err", err) // a full disk must not keep anybody from clearing it
	}
	if s.runner, err = command.NewInit("/sys/fs/cgroup", limits(c)); err != nil {
		return 0, nil, err
	}
	s.runner.SetBase(trustEnv("/", c.GetAuthorities()))
	s.runner.SetEnv(c.GetEnv())
	s.conf = c
	s.startBackground()
	return s.diskBytes(), s.runner, nil
}

// limits leave the agent and the kernel room: the user's commands get the rest.
func limits(c *proto.ConfigureRequest) command.Limits {
	var info unix.Sysinfo_t
	total := uint64(1 << 30)
	if err := unix.Sysinfo(&info); err == nil {
		total = info.Totalram * uint64(info.Unit)
	}
	l := limitsFor(total)
	if n := c.GetMaxProcesses(); n > 0 {
		l.Pids = int(n)
	}
	l.Memory -= min(command.OutputRoom(c.GetOutputBytes()), l.Memory/4)
	return l
}

// What a machine keeps for itself, and what a process may be expected to need: a shell that only waits takes some 200 KiB,
// page tables and the kernel's part included. A fork bomb has to meet its own limit while there is memory left, or it takes
// the machine along.
const (
	memoryRoom    = 64 << 20
	memoryPerTask = 512 << 10
	maxTasks      = 1 << 15
)

func limitsFor(total uint64) command.Limits {
	return command.Limits{
		Pids:   int(min(total/memoryPerTask, maxTasks)), //nolint:gosec // at most maxTasks
		Memory: max(total-min(memoryRoom, total/4), total/2),
	}
}

func (s *System) diskBytes() int64 {
	var st unix.Statfs_t
	if s.disk == nil || unix.Fstatfs(int(s.disk.Fd()), &st) != nil {
		return 0
	}
	return int64(st.Blocks) * st.Bsize //nolint:gosec // below 2^63
}

// SetClock sets the wall clock to ns since 1970; 0 leaves it.
func (s *System) SetClock(ns int64) error {
	if ns <= 0 {
		return nil
	}
	ts := unix.NsecToTimespec(ns)
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}

// switchRoot opens the disk, puts it over the image and makes that the root.
func (s *System) switchRoot(uuid []byte) error {
	// No zeroing of inode tables in the background: it would fill the host's sparse file for nothing.
	if err := mountDevice(s.drives["disk"], diskDir, unix.MS_NOATIME, "noinit_itable"); err != nil {
		return err
	}
	var err error
	if s.disk, err = os.Open(diskDir); err != nil {
		return err
	}
	if err := setUUID(s.disk, uuid); err != nil {
		return err
	}
	if err := grow(s.disk, s.drives["disk"]); marked(err) {
		s.log.Warn("the disk's file system saw errors, e2fsck would mend it", "err", err)
	} else if err != nil {
		return err
	}
	upper, work := filepath.Join(diskDir, "upper"), filepath.Join(diskDir, "work")
	for _, d := range []string{upper, work, rootDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	opts := "lowerdir=" + imageDir + ",upperdir=" + upper + ",workdir=" + work + ",redirect_dir=off,metacopy=off,index=off"
	if err := unix.Mount("overlay", rootDir, "overlay", 0, opts); err != nil {
		return fmt.Errorf("mount the disk over the image: %w", err)
	}
	for _, m := range earlyMounts() {
		to := rootDir + m.at
		if err := os.MkdirAll(to, m.mode); err != nil {
			return err
		}
		if err := unix.Mount(m.at, to, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", m.at, err)
		}
	}
	return enter(rootDir)
}

// enter makes the mount at dir the root of everything.
func enter(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the new root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := os.MkdirAll("/tmp", 0o777); err != nil {
		return err
	}
	return os.Chmod("/tmp", 0o777|os.ModeSticky)
}

// mountModules puts the kernel's modules where modprobe looks.
func (s *System) mountModules() error {
	dev, ok := s.drives["modules"]
	if !ok || s.release == "" || s.disk == nil {
		return nil
	}
	return mountDevice(dev, filepath.Join("/usr/lib/modules", s.release), unix.MS_RDONLY|unix.MS_NOATIME, "noload")
}

// Resumed gives a restored guest its new time, randomness and identity. Nothing of the user's runs meanwhile. What cannot be
// renewed is an error: the machine would go on as another one.
func (s *System) Resumed(r *proto.ResumedRequest) error {
	if r.GetWallClockNs() <= 0 {
		return errors.New("a restored guest needs to know the time")
	}
	if err := s.SetClock(r.GetWallClockNs()); err != nil {
		return fmt.Errorf("wall clock: %w", err)
	}
	if err := addEntropy(r.GetSeed()); err != nil {
		return err
	}
	if s.runner == nil {
		return nil // Configure does the rest
	}
	if err := newIdentity(r.GetIdentity()); err != nil {
		return err
	}
	if err := s.network(r.GetNetwork()); err != nil {
		return err
	}
	if err := renewHostKeys(sshDir, r.GetIdentity().GetHostname()); err != nil {
		return fmt.Errorf("host keys: %w", err)
	}
	var err error
	if s.awaited, err = hangUpLogins(); err != nil { // before it can show anybody the former key
		return err
	}
	if s.disk == nil {
		return nil
	}
	if err := dropCache(s.drives["disk"]); err != nil {
		return fmt.Errorf("drop cached blocks: %w", err)
	}
	return grow(s.disk, s.drives["disk"])
}

// Awake waits, now that everything runs again, for what had to begin anew.
func (s *System) Awake() error {
	if s.awaited == nil {
		return nil
	}
	return s.awaited()
}

// Shutdown writes everything back and makes the disk's file system read only. The commands have ended.
func (s *System) Shutdown() {
	unix.Sync()
	if s.disk == nil {
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		s.log.Warn("remount the root read only", "err", err)
	}
	// The disk's own mount is hidden below the new root: its descriptor leads there.
	at := fmt.Sprintf("%s/self/fd/%d", proc, s.disk.Fd())
	for range 20 {
		err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EBUSY) {
			s.log.Warn("remount the disk read only", "err", err)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	unix.Sync()
}
