// Package doctor looks at everything that SmolVM needs of the host, and says how to mend what is missing.
//
// Layer: front, beside cli. It may import lifecycle, api, errdefs, internal/sys.
package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// oldKernel is the age from which a guest kernel is worth a newer one.
const oldKernel = 30 * 24 * time.Hour

// Prober is what the doctor needs of lifecycle.Manager.
type Prober interface {
	Probe(ctx context.Context) lifecycle.Probed
}

// Options say what to look at.
type Options struct {
	Home     string
	Mirrors  []string // a small file of each archive that images come from
	AgentErr error    // the guest agent is not in this program
	Now      time.Time
}

// doctor is one visit.
type doctor struct {
	Options
	checks []api.Check
	built  bool // there are an image and a kernel: what only a build needs is not missed now
}

// Run looks at the host and returns what it found, in the order in which it matters.
func Run(ctx context.Context, p Prober, o Options) []api.Check {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	d := &doctor{Options: o}
	facts := p.Probe(ctx)
	d.built = facts.ImageErr == nil && facts.KernelErr == nil
	d.agent()
	d.engines(facts)
	d.image(facts)
	d.kernel(facts)
	d.tools()
	d.archive(ctx)
	d.namespaces(ctx)
	d.landlock()
	d.cgroups()
	d.disk()
	d.memory()
	return d.checks
}

func (d *doctor) add(name string, status api.CheckStatus, remedy, detail string, args ...any) {
	d.checks = append(d.checks, api.Check{Name: name, Status: status, Detail: fmt.Sprintf(detail, args...), Remedy: remedy})
}

func (d *doctor) ok(name, detail string, args ...any) { d.add(name, api.CheckOK, "", detail, args...) }

func (d *doctor) warn(name, remedy, detail string, args ...any) {
	d.add(name, api.CheckWarning, remedy, detail, args...)
}

func (d *doctor) fail(name, remedy, detail string, args ...any) {
	d.add(name, api.CheckFailure, remedy, detail, args...)
}

// forBuild is a failure while there is nothing built, and a warning afterwards.
func (d *doctor) forBuild(name, remedy, detail string, args ...any) {
	status := api.CheckFailure
	if d.built {
		status = api.CheckWarning
	}
	d.add(name, status, remedy, detail, args...)
}

func (d *doctor) agent() {
	if d.AgentErr != nil {
		d.fail("agent", errdefs.RemedyOf(d.AgentErr), "%v", d.AgentErr)
		return
	}
	d.ok("agent", "the guest agent is in this program")
}

func (d *doctor) engines(facts lifecycle.Probed) {
	usable := 0
	for _, e := range facts.Engines {
		switch {
		case e.Err != nil && others(facts.Engines, e.Name, false):
			// VMs run without it. Where there is hardware to run them on, it would be faster to start and smaller.
			if others(facts.Engines, e.Name, true) {
				d.warn("engine "+e.Name, errdefs.RemedyOf(e.Err), "%v; it would start VMs faster here", e.Err)
			} else {
				d.ok("engine "+e.Name, "not used: %v", e.Err)
			}
			continue
		case e.Err != nil:
			d.fail("engine "+e.Name, errdefs.RemedyOf(e.Err), "%v", e.Err)
			continue
		case !e.Caps.Tested:
			d.warn("engine "+e.Name, "report what fails", "%s %s, a version that SmolVM's tests did not run on", e.Caps.Path, e.Caps.Version)
		default:
			d.ok("engine "+e.Name, "%s %s", e.Caps.Path, e.Caps.Version)
		}
		usable++
		suffix := ""
		if others(facts.Engines, e.Name, false) {
			suffix = " with " + e.Name
		}
		d.accels(e, suffix)
	}
	if usable == 0 && len(facts.Engines) > 1 {
		d.fail("engines", "", "none can be used")
	}
}

// others reports whether an engine other than the named one can be used, with hardware where that is wanted.
func others(engines []lifecycle.ProbedEngine, name string, hardware bool) bool {
	return slices.ContainsFunc(engines, func(e lifecycle.ProbedEngine) bool {
		return e.Name != name && e.Err == nil && (!hardware || slices.ContainsFunc(e.Accels, func(a lifecycle.ProbedAccel) bool {
			return !a.Emulated && a.Missing == "" && (!a.Tried || a.Usable)
		}))
	})
}

// accels tells of each accelerator what was found out, and of emulation whether it is what VMs get.
func (d *doctor) accels(e lifecycle.ProbedEngine, suffix string) {
	hardware := false
	for _, a := range e.Accels {
		name := "accelerator " + a.Name + suffix
		switch {
		case a.Emulated && hardware:
			d.ok(name, "emulation, for when nothing else works")
		case a.Emulated:
			d.warn(name, "run on a machine with KVM, or refuse emulation with --require-accel", "VMs are emulated: slower, and no security boundary")
		case a.Missing != "":
			d.warn(name, a.Remedy, "%s", a.Missing)
		case !a.Tried:
			d.ok(name, "not tried since this host was started; the next start of a VM will tell")
			hardware = true
		case !a.Usable:
			d.warn(name, "", "unusable: %s (%s)", a.Evidence, a.Time.Format(time.DateTime))
		default:
			d.ok(name, "proven: %s (%s)", a.Evidence, a.Time.Format(time.DateTime))
			hardware = true
		}
	}
}

func (d *doctor) image(facts lifecycle.Probed) {
	switch err := facts.ImageErr; {
	case err == nil:
		d.ok("image", "%s, %s, made %s ago", facts.Image.Name, units.BytesSize(float64(facts.Image.SizeBytes)), units.HumanDuration(d.Now.Sub(facts.Image.CreatedAt)))
	case errdefs.Is(err, errdefs.NotFound):
		d.warn("image", "smolvm image build", "not made yet; the first start makes it, which takes minutes")
	default:
		d.fail("image", "smolvm image build --refresh", "%v", err)
	}
}

func (d *doctor) kernel(facts lifecycle.Probed) {
	k := facts.Kernel
	switch err := facts.KernelErr; {
	case errdefs.Is(err, errdefs.NotFound):
		d.warn("kernel", "smolvm image build", "not fetched yet; the first start fetches it")
	case err != nil:
		d.fail("kernel", "smolvm image build --refresh", "%v", err)
	case d.Now.Sub(k.CreatedAt) > oldKernel:
		d.warn("kernel", "smolvm image build --refresh", "%s, fetched %s ago: there may be a safer one", k.Release, units.HumanDuration(d.Now.Sub(k.CreatedAt)))
	default:
		d.ok("kernel", "%s (%s %s)", k.Release, k.Package, k.Version)
	}
}

// tool is a host's program that builds need.
type tool struct{ program, pkg string }

func (d *doctor) tools() {
	tools := []tool{{"apt-get", "apt"}, {"mmdebstrap", "mmdebstrap"}, {"depmod", "kmod"}, {"unshare", "util-linux"}}
	if os.Geteuid() != 0 {
		tools = append(tools, tool{"newuidmap", "uidmap"})
	}
	var missing, packages []string
	for _, t := range tools {
		if !installed(t.program) {
			missing, packages = append(missing, t.program), append(packages, t.pkg)
		}
	}
	if len(missing) > 0 {
		d.forBuild("build tools", "sudo apt-get install "+strings.Join(packages, " "), "missing: %s", strings.Join(missing, ", "))
	} else {
		var names []string
		for _, t := range tools {
			names = append(names, t.program)
		}
		d.ok("build tools", "%s", strings.Join(names, ", "))
	}
	if os.Geteuid() != 0 {
		d.subIDs()
	}
}

// installed also looks where an ordinary user's PATH does not lead.
func installed(program string) bool {
	if _, err := exec.LookPath(program); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		if unix.Access(dir+"/"+program, unix.X_OK) == nil {
			return true
		}
	}
	return false
}

// subIDs looks for the subordinate ids that an ordinary user needs to build an image.
func (d *doctor) subIDs() {
	u, err := user.Current()
	if err != nil {
		d.forBuild("subordinate ids", "", "who am I: %v", err)
		return
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		b, err := os.ReadFile(file)
		if err != nil || !hasRange(string(b), u.Username, u.Uid) {
			d.forBuild("subordinate ids", fmt.Sprintf("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", u.Username),
				"%s has no 65536 of them in %s", u.Username, file)
			return
		}
	}
	d.ok("subordinate ids", "%s has a range in /etc/subuid and /etc/subgid", u.Username)
}

// hasRange reports whether the text of subuid(5) gives the user enough ids for a Debian system.
func hasRange(text, name, uid string) bool {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 || f[0] != name && f[0] != uid {
			continue
		}
		var n int64
		if _, err := fmt.Sscan(f[2], &n); err == nil && n >= 65535 {
			return true
		}
	}
	return false
}
