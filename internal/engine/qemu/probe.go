package qemu

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/kvm"
	"github.com/smolvm/smolvm/internal/engine/monitor"
)

const (
	program       = "qemu-system-x86_64"
	programVar    = "SMOLVM_QEMU"
	installRemedy = "apt-get install qemu-system-x86"
)

// The oldest version that has all we use (the dgram network backend), and the release series that the suite ran on.
const oldestMajor, oldestMinor = 7, 2

func testedSeries() []string { return []string{"7.2", "10.0"} }

type version struct{ major, minor, micro int }

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.micro) }

func (v version) tooOld() bool {
	return v.major < oldestMajor || v.major == oldestMajor && v.minor < oldestMinor
}

func (v version) tested() bool {
	return slices.Contains(testedSeries(), fmt.Sprintf("%d.%d", v.major, v.minor))
}

// programs are the QEMUs of this host.
func programs() *monitor.Programs[version] {
	return &monitor.Programs[version]{Title: "QEMU", Remedy: installRemedy, Parse: parseVersion}
}

// Probe implements engine.Engine.
func (e *Engine) Probe(ctx context.Context) (engine.Caps, error) {
	p, err := e.programs.Find(ctx, cmp.Or(e.opts.Program, os.Getenv(programVar), program))
	if err != nil {
		return engine.Caps{}, err
	}
	if p.Version.tooOld() {
		return engine.Caps{}, errdefs.Host.Errorf("%s is QEMU %s; %d.%d or newer is needed", p.Path, p.Version, oldestMajor, oldestMinor).
			WithRemedy("install a newer one, or name one by %s=/path/to/%s", programVar, program)
	}
	return engine.Caps{
		Version: p.Version.String(), Path: p.Path, Build: p.Build, Tested: p.Version.tested(),
		Accels: []engine.Accel{kvm.Accel(), {Name: accelTCG, Emulated: true}},
	}, nil
}

var versionLine = regexp.MustCompile(`^QEMU emulator version (\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?`)

func parseVersion(said []byte) (version, error) {
	m := versionLine.FindSubmatch(said)
	if m == nil {
		first, _, _ := bytes.Cut(said, []byte("\n"))
		return version{}, fmt.Errorf("it is no QEMU: it says %.100q", first)
	}
	var n [3]int
	for i := range n {
		n[i], _ = strconv.Atoi(string(m[i+1])) // digits, or nothing
	}
	return version{n[0], n[1], n[2]}, nil
}
