package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/sys/cgroup"
	"github.com/smolvm/smolvm/internal/sys/launch"
	"github.com/smolvm/smolvm/internal/sys/memory"
)

const (
	netTimeout = 20 * time.Second
	aptHelper  = "/usr/lib/apt/apt-helper" // part of the package apt

	// A build needs room for the image twice; a VM's disk grows as it is used.
	leastDisk  = 2 << 30
	enoughDisk = 6 << 30
	enoughRAM  = 1 << 30
)

// archive lets apt fetch a small file, by whatever proxy apt has.
func (d *doctor) archive(ctx context.Context) {
	if unix.Access(aptHelper, unix.X_OK) != nil {
		d.forBuild("archive", "sudo apt-get install apt", "%s is missing", aptHelper)
		return
	}
	dir, err := os.MkdirTemp("", "smolvm-doctor-")
	if err != nil {
		d.fail("archive", "", "make a temporary directory: %v", err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(ctx, netTimeout)
	defer cancel()
	for _, m := range d.Mirrors {
		cmd := exec.CommandContext(ctx, aptHelper, "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=10", "-o", "Acquire::https::Timeout=10",
			"-o", "APT::Sandbox::User=", "download-file", m, filepath.Join(dir, "file"))
		out, err := cmd.CombinedOutput()
		if ctx.Err() != nil {
			err = errors.New("no answer within " + netTimeout.String())
		}
		if err != nil {
			d.forBuild("archive", "check the network and apt's proxy (apt-config dump Acquire), or name another by SMOLVM_DEBIAN_MIRROR", "%s: %s", m, reason(string(out), err))
			return
		}
	}
	d.ok("archive", "apt reaches %s", strings.Join(d.Mirrors, " and "))
}

// reason is the line in which apt says why.
func reason(out string, err error) string {
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, "E: "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return err.Error()
}

func (d *doctor) landlock() {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		d.warn("landlock", "boot a kernel of 5.13 or newer with lsm=landlock,… on its command line", "not there (%v): the monitor is not held to its own files", errno)
		return
	}
	d.ok("landlock", "version %d", abi)
}

func (d *doctor) cgroups() {
	if parent, err := cgroup.Find(cgroup.Limits{CPUPercent: 100, Memory: 1 << 30, Processes: launch.MaxThreads}); err == nil {
		d.ok("cgroups", "a monitor's memory and processes, and a VM's --cpu-share, are bounded in %s", parent)
		return
	}
	parent, err := cgroup.Find(cgroup.Limits{CPUPercent: 100})
	if err != nil {
		d.warn("cgroups", "run as root, or: systemd-run --user --scope -p Delegate=yes smolvm …",
			"no control group can be made, so that --cpu-share is refused: %v", err)
		return
	}
	d.ok("cgroups", "a VM's --cpu-share is enforced in %s; a monitor's memory and processes are bounded by limits of the process alone", parent)
}

func (d *doctor) disk() {
	dir := d.Home
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == "/" {
			break
		}
		dir = filepath.Dir(dir)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		d.fail("disk", "smolvm --home DIR, or SMOLVM_HOME", "%s: %v", dir, err)
		return
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		d.fail("disk", "smolvm --home DIR, or SMOLVM_HOME", "%s cannot be written: %v", dir, err)
		return
	}
	free := int64(st.Bavail) * st.Bsize
	text := units.BytesSize(float64(free))
	switch {
	case free < leastDisk && !d.built:
		d.fail("disk", "make room, or use another place: smolvm --home DIR", "%s free in %s, too little to make an image", text, dir)
	case free < enoughDisk:
		d.warn("disk", "make room, or use another place: smolvm --home DIR", "%s free in %s; a VM's disk may grow to 8 GiB", text, dir)
	default:
		d.ok("disk", "%s free in %s", text, dir)
	}
}

func (d *doctor) memory() {
	now, err := memory.Now()
	if err != nil {
		d.warn("memory", "", "%v", err)
		return
	}
	free := now.Available
	if free < enoughRAM {
		d.warn("memory", "smaller VMs: --memory 256m", "%s available, less than a VM's default of 1 GiB", units.BytesSize(float64(free)))
		return
	}
	d.ok("memory", "%s available", units.BytesSize(float64(free)))
}
