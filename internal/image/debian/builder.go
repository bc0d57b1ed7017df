// Package debian builds the default image: Debian 13 with what an agent expects of a machine, made by mmdebstrap in
// namespaces of its own and cleaned of all that must differ between machines.
//
// Layer: below cmd (internal/wire). It may import api, errdefs, image, image/apt, internal/sys.
package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image"
	"github.com/smolvm/smolvm/internal/image/apt"
	"github.com/smolvm/smolvm/internal/sys/launch"
	"github.com/smolvm/smolvm/internal/sys/memory"
	"github.com/smolvm/smolvm/internal/sys/nsinit"
)

// Name is the builder's name, and the default image's.
const Name = "debian"

// Builder makes Debian 13 images.
type Builder struct {
	Archive apt.Archive
	Log     *slog.Logger

	keyring []byte // instead of Debian's, in tests
	memory  int64  // instead of what the host has free, in tests
}

var _ image.Builder = Builder{}

// Name implements image.Builder.
func (b Builder) Name() string { return Name }

// Packages are what the image has besides Essential packages and apt, without what they need.
func Packages() []string {
	return []string{
		"bash", "python3", "python3-pip", "python3-venv", "git", "curl", "ca-certificates", "openssh-server", "procps",
		"iproute2", "less", "xz-utils", "tmux", "jq", "kmod", "mount",
		// What an agent would miss at once.
		"bc", "bind9-dnsutils", "bzip2", "file", "gnupg", "htop", "iputils-ping", "lsof", "make", "nano",
		"netcat-openbsd", "patch", "psmisc", "python-is-python3", "ripgrep", "rsync", "socat", "sqlite3", "strace", "sudo",
		"tree", "tzdata", "unzip", "vim-tiny", "wget", "zip", "zstd",
	}
}

// packageName is Debian's rule, without architectures and versions.
var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,100}$`)

// Build implements image.Builder.
func (b Builder) Build(ctx context.Context, req image.BuildRequest, w io.Writer) (image.Facts, error) {
	packages := Packages()
	for _, p := range req.Include {
		if !packageName.MatchString(p) {
			return image.Facts{}, errdefs.Invalid.Errorf("%q is no name of a Debian package", p)
		}
		if !slices.Contains(packages, p) {
			packages = append(packages, p)
		}
	}
	t, err := findTools()
	if err != nil {
		return image.Facts{}, err
	}
	spec, err := b.spec(ctx, t, packages)
	if err != nil {
		return image.Facts{}, err
	}
	done, err := b.scratch(ctx, req.Scratch, &spec)
	if err != nil {
		return image.Facts{}, err
	}
	defer done()
	started := time.Now()
	sbom, err := b.run(ctx, spec, newProgress(req.Progress, len(packages)), w)
	if err != nil {
		return image.Facts{}, err
	}
	b.log().Info("debian image built", "packages", len(sbom), "took", time.Since(started).Round(time.Millisecond))
	return image.Facts{Source: b.Archive.String(), Packages: sbom}, nil
}

func (b Builder) log() *slog.Logger {
	if b.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return b.Log
}

// keyringFile is where the keys are in the namespaces. Each source names it: for one that does not, mmdebstrap would look
// for keys among the host's.
const keyringFile = "/tmp/keyring.gpg"

// spec says how mmdebstrap runs.
func (b Builder) spec(ctx context.Context, t tools, packages []string) (nsinit.Spec, error) {
	proxies, err := apt.Proxies(ctx)
	if err != nil {
		return nsinit.Spec{}, err
	}
	keyring := b.keyring
	if keyring == nil {
		keyring = apt.Keyring()
	}
	argv := []string{
		t.mmdebstrap, "--mode=root", "--variant=apt", "--format=tar", "--verbose", "--architectures=amd64",
		"--keyring=" + keyringFile, "--components=main",
		// The lists hold the hashes for the SBOM; they are taken out on the way.
		"--skip=cleanup/apt/lists",
		`--aptopt=Acquire::GzipIndexes "false"`, `--aptopt=Acquire::Languages "none"`,
		`--aptopt=Acquire::Retries "2"`, `--aptopt=Acquire::http::Timeout "30"`, `--aptopt=Acquire::https::Timeout "30"`,
		`--dpkgopt=force-unsafe-io`,
		"--include=" + strings.Join(packages, ","),
	}
	for _, p := range proxies {
		argv = append(argv, "--aptopt="+p)
	}
	argv = append(argv, apt.Suite, "-")
	return nsinit.Spec{
		Unshare: t.unshare, UserNamespace: !launch.IsRoot(), Argv: append(argv, b.Archive.Lines(keyringFile)...),
		Env: apt.Environ("HOME=/root"), Files: map[string][]byte{filepath.Base(keyringFile): keyring},
	}, nil
}

// Memory: below minMemory a build uses the disk instead. It needs about 700 MB at its widest.
const (
	minMemory     = 1 << 30
	scratchPrefix = ".build-"
)

// scratch decides where the build works, and removes what killed ones left. done removes it.
func (b Builder) scratch(ctx context.Context, dir string, spec *nsinit.Spec) (done func(), err error) {
	left, err := filepath.Glob(filepath.Join(dir, scratchPrefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("look for former builds: %w", err)
	}
	if dir == "" {
		left = nil
	}
	for _, d := range left {
		if err := nsinit.Clean(ctx, spec.Unshare, spec.UserNamespace, d); err != nil {
			return nil, errdefs.Host.Errorf("remove what a killed build left: %w", err)
		}
	}
	free := b.memory
	if free == 0 {
		now, err := memory.Now()
		if err != nil {
			b.log().Warn("how much memory is free is not known, the build uses the disk", "err", err)
		}
		free = now.Available
	}
	if free >= minMemory || dir == "" {
		spec.TmpfsBytes = max(free/4*3, minMemory)
		return func() {}, nil
	}
	b.log().Info("little memory is free, the build uses the disk", "free_mib", free>>20)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errdefs.Host.Errorf("make a build directory: %w", err)
	}
	if spec.TmpDir, err = os.MkdirTemp(dir, scratchPrefix); err != nil {
		return nil, errdefs.Host.Errorf("make a build directory: %w", err)
	}
	return func() {
		if os.Remove(spec.TmpDir) != nil { // not empty: the build was killed
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			if err := nsinit.Clean(ctx, spec.Unshare, spec.UserNamespace, spec.TmpDir); err != nil {
				b.log().Warn("a build directory is left", "err", err)
			}
		}
	}, nil
}

// run runs mmdebstrap and cleans its tar on the way to w.
func (b Builder) run(ctx context.Context, spec nsinit.Spec, p *progress, w io.Writer) ([]api.Package, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, pw := io.Pipe()
	type result struct {
		sbom []api.Package
		err  error
	}
	cleaned := make(chan result, 1)
	go func() {
		c := cleaner{archive: b.Archive.ForGuest(), now: time.Now()}
		sbom, err := c.clean(r, w)
		if err == nil {
			_, err = io.Copy(io.Discard, r) // a tar ends before its stream does
		}
		if err != nil {
			cancel(err) // ends mmdebstrap
		}
		_ = r.CloseWithError(errors.New("not read any further"))
		cleaned <- result{sbom, err}
	}()
	err := nsinit.Run(ctx, spec, pw, p)
	failed := err
	if failed == nil {
		failed = io.EOF
	}
	_ = pw.CloseWithError(failed)
	res := <-cleaned
	if err != nil && (res.err == nil || errors.Is(res.err, err)) {
		if _, ok := nsinit.ExitCode(err); !ok {
			return nil, err
		}
		return nil, classify(err, p.told.String())
	}
	return res.sbom, res.err
}

// classify tells a failure of the namespaces from one of the archive.
func classify(err error, told string) error {
	if strings.Contains(told, "unshare failed") || strings.Contains(told, "newuidmap") || strings.Contains(told, "newgidmap") ||
		strings.Contains(told, "unshare: ") {
		return errdefs.Host.Errorf("make namespaces for mmdebstrap: %w: %s", err, strings.TrimSpace(told)).
			WithRemedy("allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, on Ubuntu " +
				"kernel.apparmor_restrict_unprivileged_userns=0) or build as root")
	}
	return apt.Classify("mmdebstrap", err, told)
}
