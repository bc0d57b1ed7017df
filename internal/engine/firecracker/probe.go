package firecracker

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/firecracker/fcapi"
	"github.com/smolvm/smolvm/internal/engine/monitor"
)

const (
	program       = "firecracker"
	programVar    = "SMOLVM_FIRECRACKER"
	installRemedy = "smolvm engine install firecracker"
)

// oldest is the first release that has all we use: the kernel's PVH entry and full snapshots whose vsock lives on.
func oldest() fcapi.Version { return fcapi.Version{Major: 1, Minor: 12} }

// tested are the releases that the suite ran on.
func tested() []fcapi.Version { return []fcapi.Version{{Major: 1, Minor: 12, Micro: 1}} }

// Recommended is the release to install where none is named: the newest that was tested.
func Recommended() fcapi.Version { all := tested(); return all[len(all)-1] }

// Refused is the error of a release that is not used; nil for one that is.
func Refused(v fcapi.Version) error {
	why := refusal(v)
	if why == "" {
		return nil
	}
	return errdefs.Host.Errorf("Firecracker %s: %s", v, why).WithRemedy("%s --version %s", installRemedy, Recommended())
}

// refusal says why a release is not used, or "".
func refusal(v fcapi.Version) string {
	switch {
	case v.Before(oldest()):
		return fmt.Sprintf("%s or newer is needed", oldest())
	case v == fcapi.Version{Major: 1, Minor: 16}:
		return "no guest of it answers after a restore; 1.16.1 repairs that"
	}
	return ""
}

// programs are the Firecrackers of this host.
func programs() *monitor.Programs[fcapi.Version] {
	return &monitor.Programs[fcapi.Version]{Title: "Firecracker", Remedy: installRemedy, Parse: fcapi.ParseVersion}
}

// Probe implements engine.Engine.
func (e *Engine) Probe(ctx context.Context) (engine.Caps, error) {
	p, err := e.programs.Find(ctx, cmp.Or(e.opts.Program, os.Getenv(programVar), installed(e.opts.Dir), program))
	if err != nil {
		return engine.Caps{}, err
	}
	if why := refusal(p.Version); why != "" {
		return engine.Caps{}, errdefs.Host.Errorf("%s is Firecracker %s: %s", p.Path, p.Version, why).
			WithRemedy("%s, or name another one by %s=/path/to/%s", installRemedy, programVar, program)
	}
	return engine.Caps{
		Version: p.Version.String(), Path: p.Path, Build: p.Build, Tested: slices.Contains(tested(), p.Version),
		Accels: []engine.Accel{e.kvm()},
	}, nil
}
