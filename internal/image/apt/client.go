package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/smolvm/smolvm/errdefs"
)

// Client runs apt with a configuration of its own, which lies in one directory.
type Client struct {
	dir  string
	arch string
}

// NewClient prepares a private apt in dir, which exists and is empty. The caller removes it.
func NewClient(ctx context.Context, dir string, archive Archive) (*Client, error) {
	proxies, err := Proxies(ctx)
	if err != nil {
		return nil, err
	}
	return newClient(dir, archive, proxies)
}

func newClient(dir string, archive Archive, proxies []string) (*Client, error) {
	c := &Client{dir: dir, arch: runtime.GOARCH}
	for _, d := range []string{"none", "state/lists/partial", "cache/archives/partial", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("prepare apt: %w", err)
		}
	}
	files := map[string][]byte{
		"apt.conf":     []byte(c.config(proxies)),
		"keyring.gpg":  Keyring(),
		"smol.sources": []byte(archive.Sources(filepath.Join(dir, "keyring.gpg"))),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return nil, fmt.Errorf("prepare apt: %w", err)
		}
	}
	return c, nil
}

// config is the whole of the private configuration. It is read before the built-in places, so that those are never
// looked at.
func (c *Client) config(proxies []string) string {
	at := func(name string) string { return strconv.Quote(filepath.Join(c.dir, name)) }
	lines := []string{
		`Dir::Etc::main "/dev/null"`,
		"Dir::Etc::parts " + at("none"),
		"Dir::Etc::sourcelist " + at("smol.sources"),
		"Dir::Etc::sourceparts " + at("none"),
		"Dir::Etc::trusted " + at("keyring.gpg"),
		"Dir::Etc::trustedparts " + at("none"),
		"Dir::State " + at("state"),
		"Dir::State::lists " + at("state/lists"),
		`Dir::State::status "/dev/null"`,
		"Dir::Cache " + at("cache"),
		`Dir::Cache::pkgcache ""`,
		`Dir::Cache::srcpkgcache ""`,
		"Dir::Log " + at("none"),
		`APT::Architecture "` + c.arch + `"`,
		`APT::Architectures "` + c.arch + `"`,
		`APT::Sandbox::User "root"`, // else apt wants a directory that its user _apt can reach
		`APT::Update::Error-Mode "any"`,
		`Acquire::Languages "none"`,
		`Acquire::Retries "2"`,
		`Acquire::http::Timeout "30"`,
		`Acquire::https::Timeout "30"`,
		`Acquire::AllowInsecureRepositories "false"`,
	}
	return strings.Join(append(lines, proxies...), ";\n") + ";\n"
}

// Fetched is how far apt is with what it downloads, 0 to 100.
type Fetched func(percent float64)

// Update fetches the lists of the archive and checks their signatures.
func (c *Client) Update(ctx context.Context, report Fetched) error {
	_, err := c.run(ctx, report, "apt-get", "update")
	return err
}

// Record is a package as the archive lists it.
type Record struct {
	Package, Version, Depends, SHA256 string
	Size                              int64
}

// Newest returns the version of a package that apt would install.
func (c *Client) Newest(ctx context.Context, name string) (Record, error) {
	out, err := c.run(ctx, nil, "apt-cache", "show", "--no-all-versions", name)
	if err != nil {
		return Record{}, errdefs.Image.Errorf("the archive has no package %s: %w", name, err)
	}
	var rec Record
	err = Stanzas(bytes.NewReader(out), func(s Stanza) error {
		if rec.Package == "" {
			size, _ := strconv.ParseInt(s["Size"], 10, 64) // informative; the hash decides
			rec = Record{Package: s["Package"], Version: s["Version"], Depends: s["Depends"], SHA256: s["SHA256"], Size: size}
		}
		return nil
	})
	if err != nil {
		return Record{}, err
	}
	if rec.Package != name || rec.Version == "" || len(rec.SHA256) != 64 {
		return Record{}, errdefs.Image.Errorf("the archive has no complete record of %s", name)
	}
	return rec, nil
}

// Download fetches the file of a package into the client's directory, where apt checks it against the signed lists, and
// returns its path.
func (c *Client) Download(ctx context.Context, rec Record, report Fetched) (string, error) {
	if _, err := c.run(ctx, report, "apt-get", "download", rec.Package+"="+rec.Version); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(c.dir, "tmp", "*.deb"))
	if err != nil || len(found) != 1 {
		return "", errdefs.Image.Errorf("apt-get download of %s left %d files (%v)", rec.Package, len(found), err)
	}
	return found[0], nil
}

// run runs one of apt's programs and returns what it printed.
func (c *Client) run(ctx context.Context, report Fetched, name string, args ...string) ([]byte, error) {
	tool, err := Tool(name, "apt")
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	errs := &Tail{Max: 64 << 10}
	cmd := exec.CommandContext(ctx, tool, append([]string{"-q", "-o", "APT::Status-Fd=3"}, args...)...)
	cmd.Dir = filepath.Join(c.dir, "tmp")
	cmd.Env = Environ("APT_CONFIG="+filepath.Join(c.dir, "apt.conf"), "TMPDIR="+cmd.Dir, "HOME="+c.dir)
	cmd.Stdout, cmd.Stderr = &out, errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	status, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer func() { _ = status.Close() }()
	cmd.ExtraFiles = []*os.File{w}
	done := make(chan struct{})
	go func() { defer close(done); readStatus(status, report) }()
	err = cmd.Start()
	_ = w.Close()
	if err == nil {
		err = cmd.Wait()
	}
	<-done
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, Classify(fmt.Sprintf("%s %s", name, args[0]), err, errs.String())
	}
	return out.Bytes(), nil
}

var statusLine = regexp.MustCompile(`^(?:dlstatus|pmstatus):[^:]*:([0-9.]+):`)

// readStatus reads apt's machine-readable progress until its end.
func readStatus(r io.Reader, report Fetched) {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		for line := range strings.Lines(string(buf[:n])) {
			if m := statusLine.FindStringSubmatch(line); m != nil && report != nil {
				if p, err := strconv.ParseFloat(m[1], 64); err == nil && p >= 0 && p <= 100 {
					report(p)
				}
			}
		}
		if err != nil {
			return
		}
	}
}

// Classify makes an error of what apt, or a tool that runs it, printed when it failed.
func Classify(what string, err error, output string) error {
	var told []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "E:") || strings.HasPrefix(line, "W:") {
			told = append(told, line)
		}
	}
	if len(told) == 0 {
		told = append(told, lastLine(output))
	}
	msg := strings.Join(told[:min(len(told), 6)], "\n  ")
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(output, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("NO_PUBKEY", "BADSIG", "is not signed", "EXPKEYSIG", "REVKEYSIG", "Missing key", "Bad signature",
		"Hash Sum mismatch", "invalid signature", "not valid yet", "is expired"):
		return errdefs.Image.Errorf("%s: the archive cannot be trusted: %w:\n  %s", what, err, msg).
			WithRemedy("check the system's clock and SMOLVM_DEBIAN_MIRROR, then try again")
	case has("No space left", "not have enough free space", "Disk quota exceeded"):
		return errdefs.Exhausted.Errorf("%s: %w:\n  %s", what, err, msg).WithRemedy("df -h")
	case has("Temporary failure resolving", "Could not resolve", "Could not connect", "Unable to connect",
		"Failed to fetch", "Connection failed", "does not have a Release file", "404  Not Found"):
		return errdefs.Network.Errorf("%s: %w:\n  %s", what, err, msg).
			WithRemedy("check the network, the proxy in /etc/apt/apt.conf.d and SMOLVM_DEBIAN_MIRROR, then try again")
	}
	if errors.Is(err, exec.ErrNotFound) {
		return errdefs.Host.Errorf("%s: %w", what, err)
	}
	return errdefs.Image.Errorf("%s: %w:\n  %s", what, err, msg)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	return s
}
