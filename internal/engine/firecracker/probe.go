package firecracker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/firecracker/fcapi"
	"github.com/smolvm/smolvm/internal/sys/child"
	"github.com/smolvm/smolvm/internal/sys/tail"
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

// probed is what running the program told, and of which file.
type probed struct {
	info    fs.FileInfo
	version fcapi.Version
	build   string
}

// Probe implements engine.Engine.
func (e *Engine) Probe(ctx context.Context) (engine.Caps, error) {
	path, err := e.find()
	if err != nil {
		return engine.Caps{}, err
	}
	p, err := e.look(ctx, path)
	if err != nil {
		return engine.Caps{}, err
	}
	if why := refusal(p.version); why != "" {
		return engine.Caps{}, errdefs.Host.Errorf("%s is Firecracker %s: %s", path, p.version, why).
			WithRemedy("%s, or name another one by %s=/path/to/%s", installRemedy, programVar, program)
	}
	return engine.Caps{
		Version: p.version.String(), Path: path, Build: p.build, Tested: slices.Contains(tested(), p.version),
		Accels: []engine.Accel{e.kvm()},
	}, nil
}

// find returns the absolute path of the monitor's program.
func (e *Engine) find() (string, error) {
	want := e.opts.Program
	if want == "" {
		want = os.Getenv(programVar)
	}
	if want == "" {
		want = installed(e.opts.Dir)
	}
	if want == "" {
		want = program
	}
	path, err := exec.LookPath(want)
	if err != nil {
		return "", errdefs.Host.Errorf("Firecracker is not installed: %w", err).WithRemedy(installRemedy)
	}
	if path, err = filepath.Abs(path); err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", errdefs.Host.Errorf("find %s: %w", want, err).WithRemedy(installRemedy)
	}
	return path, nil
}

// look asks the program for its version, once for as long as the file is the same.
func (e *Engine) look(ctx context.Context, path string) (probed, error) {
	info, err := os.Stat(path)
	if err != nil {
		return probed{}, errdefs.Host.Errorf("Firecracker: %w", err).WithRemedy(installRemedy)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p, ok := e.probed[path]; ok && os.SameFile(p.info, info) && p.info.Size() == info.Size() && p.info.ModTime().Equal(info.ModTime()) {
		return p, nil
	}
	v, err := AskVersion(ctx, path)
	if err != nil {
		return probed{}, err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%d\n%d", path, v, info.Size(), info.ModTime().UnixNano()))
	p := probed{info: info, version: v, build: hex.EncodeToString(sum[:8])}
	e.probed[path] = p
	return p, nil
}

// AskVersion runs the program at path for its version.
func AskVersion(ctx context.Context, path string) (fcapi.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out tail.Buffer
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	c, err := child.Start(cmd)
	if err == nil {
		err = c.Wait()
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return fcapi.Version{}, errdefs.Host.Errorf("ask %s for its version: %w: %s", path, err, out.Lines(5)).WithRemedy(installRemedy)
	}
	v, err := fcapi.ParseVersion(out.Bytes())
	if err != nil {
		return v, errdefs.Host.Errorf("%s: %w", path, err).WithRemedy(installRemedy)
	}
	return v, nil
}
