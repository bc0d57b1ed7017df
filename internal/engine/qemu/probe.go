package qemu

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/kvm"
	"github.com/smolvm/smolvm/internal/sys/child"
	"github.com/smolvm/smolvm/internal/sys/tail"
)

const (
	program       = "qemu-system-x86_64"
	programVar    = "SMOLVM_QEMU"
	installRemedy = "apt-get install qemu-system-x86"
)

// The oldest version that has all we use (the dgram network backend), and the release series that the suite ran on.
const oldestMajor, oldestMinor = 7, 2

func testedSeries() []string { return []string{"7.2", "10.0"} }

// probed is what running the program told, and of which file.
type probed struct {
	info    fs.FileInfo
	version version
	build   string
}

type version struct{ major, minor, micro int }

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.micro) }

func (v version) tooOld() bool {
	return v.major < oldestMajor || v.major == oldestMajor && v.minor < oldestMinor
}

func (v version) tested() bool {
	return slices.Contains(testedSeries(), fmt.Sprintf("%d.%d", v.major, v.minor))
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
	if p.version.tooOld() {
		return engine.Caps{}, errdefs.Host.Errorf("%s is QEMU %s; %d.%d or newer is needed", path, p.version, oldestMajor, oldestMinor).
			WithRemedy("install a newer one, or name one by %s=/path/to/%s", programVar, program)
	}
	return engine.Caps{
		Version: p.version.String(), Path: path, Build: p.build, Tested: p.version.tested(),
		Accels: []engine.Accel{kvm.Accel(), {Name: accelTCG, Emulated: true}},
	}, nil
}

// find returns the absolute path of the monitor's program.
func (e *Engine) find() (string, error) {
	want := e.opts.Program
	if want == "" {
		want = os.Getenv(programVar)
	}
	if want == "" {
		want = program
	}
	path, err := exec.LookPath(want)
	if err != nil {
		return "", errdefs.Host.Errorf("QEMU is not installed: %w", err).WithRemedy(installRemedy)
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
		return probed{}, errdefs.Host.Errorf("QEMU: %w", err).WithRemedy(installRemedy)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if p, ok := e.probed[path]; ok && os.SameFile(p.info, info) && p.info.Size() == info.Size() && p.info.ModTime().Equal(info.ModTime()) {
		return p, nil
	}
	said, err := ask(ctx, path)
	if err != nil {
		return probed{}, errdefs.Host.Errorf("ask %s for its version: %w", path, err).WithRemedy(installRemedy)
	}
	v, err := parseVersion(said)
	if err != nil {
		return probed{}, errdefs.Host.Errorf("%s: %w", path, err).WithRemedy(installRemedy)
	}
	// The version line names the distribution's package; size and time tell a build of one's own.
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%d\n%d", path, said, info.Size(), info.ModTime().UnixNano()))
	p := probed{info: info, version: v, build: hex.EncodeToString(sum[:8])}
	e.probed[path] = p
	return p, nil
}

func ask(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out tail.Buffer
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	c, err := child.Start(cmd)
	if err != nil {
		return nil, err
	}
	err = c.Wait()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out.Lines(5))
	}
	return out.Bytes(), nil
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
