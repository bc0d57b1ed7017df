// Package release fetches Firecracker's official releases, checks them, and puts each into a directory of its own.
//
// Layer: engine. It imports engine/firecracker, errdefs and internal/sys.
package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine/firecracker"
	"github.com/smolvm/smolvm/internal/engine/firecracker/fcapi"
)

// Site is where the releases are published.
const Site = "https://github.com/firecracker-microvm/firecracker/releases/download"

const (
	maxArchive  = 256 << 20
	maxChecksum = 4 << 10
	maxProgram  = 64 << 20
	// fetchTime bounds a download.
	fetchTime = 10 * time.Minute

	manifestFile = "manifest.json"
)

// Options say what to install.
type Options struct {
	Dir     string // where the releases lie, one directory each
	Version string // "" = the newest one that was tested
	From    string // an archive that is here already; "" = fetch it
	SHA256  string // what the archive's digest must be; "" = what is published beside it, or anything where it is From
	Site    string // "" = Site
	// Progress is told of bytes that came; may be nil.
	Progress func(done, total int64)
}

// Manifest is what is written down of a release.
type Manifest struct {
	Version string            `json:"version"`
	Source  string            `json:"source"`
	SHA256  string            `json:"sha256"` // of the archive
	Files   map[string]string `json:"files"`  // each one's digest
	Path    string            `json:"-"`      // of the program
}

// Install puts a release in place. On an error nothing of it is left; one that is there already is replaced at once.
func Install(ctx context.Context, o Options) (Manifest, error) {
	v, err := wanted(o)
	if err != nil {
		return Manifest{}, err
	}
	if o.SHA256 != "" && !digestRule.MatchString(o.SHA256) {
		return Manifest{}, errdefs.Invalid.Errorf("sha256: %q is not 64 hexadecimal digits", o.SHA256)
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return Manifest{}, errdefs.Host.Errorf("install Firecracker: %w", err)
	}
	temp, err := os.MkdirTemp(o.Dir, ".new-")
	if err != nil {
		return Manifest{}, errdefs.Host.Errorf("install Firecracker: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	archive, m, err := get(ctx, o, v, temp)
	if err != nil {
		return Manifest{}, err
	}
	defer func() { _ = archive.Close() }()
	if v, err = unpack(ctx, archive, temp, v, &m); err != nil {
		return Manifest{}, err
	}
	if err := os.Remove(filepath.Join(temp, archiveFile)); err != nil && o.From == "" {
		return Manifest{}, errdefs.Host.Errorf("install Firecracker: %w", err)
	}
	if err := publish(o.Dir, temp, v, m); err != nil {
		return Manifest{}, errdefs.Host.Errorf("install Firecracker %s: %w", v, err)
	}
	m.Path = firecracker.ProgramIn(o.Dir, v)
	return m, nil
}

// archiveFile is a download's name until it is unpacked.
const archiveFile = "archive"

var digestRule = regexp.MustCompile(`^[0-9a-f]{64}$`)

// wanted is the version that is meant; zero where an archive of one's own will tell.
func wanted(o Options) (fcapi.Version, error) {
	if o.Version == "" {
		if o.From != "" {
			return fcapi.Version{}, nil
		}
		return firecracker.Recommended(), nil
	}
	v, err := fcapi.ParseDir(strings.TrimPrefix(o.Version, "v"))
	if err != nil {
		return v, errdefs.Invalid.Errorf("version %q: it is not like %s", o.Version, firecracker.Recommended())
	}
	return v, firecracker.Refused(v)
}

// get opens the archive, whose digest is right.
func get(ctx context.Context, o Options, v fcapi.Version, temp string) (*os.File, Manifest, error) {
	m := Manifest{Source: o.From, Files: map[string]string{}}
	path, want := o.From, o.SHA256
	if path == "" {
		site := o.Site
		if site == "" {
			site = Site
		}
		m.Source = fmt.Sprintf("%s/v%s/firecracker-v%s-%s.tgz", site, v, v, arch())
		ctx, cancel := context.WithTimeout(ctx, fetchTime)
		defer cancel()
		published, err := checksum(ctx, m.Source+".sha256.txt")
		if err != nil {
			return nil, m, err
		}
		if want != "" && want != published {
			return nil, m, errdefs.Image.Errorf("%s is published with the digest %s, not with %s", m.Source, published, want)
		}
		want = published
		path = filepath.Join(temp, archiveFile)
		if err := fetch(ctx, m.Source, path, o.Progress); err != nil {
			return nil, m, err
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, m, errdefs.Invalid.Errorf("the archive: %w", err)
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, maxArchive+1))
	if err == nil && n > maxArchive {
		err = fmt.Errorf("it has more than %d bytes", maxArchive)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	m.SHA256 = hex.EncodeToString(h.Sum(nil))
	if err == nil && want != "" && m.SHA256 != want {
		err = fmt.Errorf("its digest is %s, not %s", m.SHA256, want)
	}
	if err != nil {
		_ = f.Close()
		return nil, m, errdefs.Image.Errorf("%s: %w", m.Source, err)
	}
	return f, m, nil
}

func arch() string {
	if runtime.GOARCH == "arm64" {
		return "aarch64"
	}
	return "x86_64"
}

// ask begins a download.
func ask(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errdefs.Invalid.Errorf("fetch %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, errdefs.Network.Errorf("fetch a release of Firecracker: %w", err).
			WithRemedy("fetch it elsewhere, then: smolvm engine install firecracker --from FILE --sha256 DIGEST")
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, errdefs.Network.Errorf("fetch %s: the answer is %s", url, resp.Status).WithRemedy("smolvm engine install firecracker --version %s", firecracker.Recommended())
	}
	return resp, nil
}

// checksum reads the digest that is published beside an archive.
func checksum(ctx context.Context, url string) (string, error) {
	resp, err := ask(ctx, url)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxChecksum))
	if err != nil {
		return "", errdefs.Network.Errorf("fetch %s: %w", url, err)
	}
	d, err := parseChecksum(b)
	if err != nil {
		return "", errdefs.Image.Errorf("%s: %w", url, err)
	}
	return d, nil
}

// parseChecksum reads a line of sha256sum's.
func parseChecksum(b []byte) (string, error) {
	d, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if !digestRule.MatchString(d) {
		return "", fmt.Errorf("it does not begin with a digest: %.80q", b)
	}
	return d, nil
}

func fetch(ctx context.Context, url, path string, progress func(done, total int64)) error {
	resp, err := ask(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return errdefs.Host.Errorf("fetch %s: %w", url, err)
	}
	_, err = io.Copy(f, &counted{r: io.LimitReader(resp.Body, maxArchive+1), total: resp.ContentLength, tell: progress})
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errdefs.Network.Errorf("fetch %s: %w", url, err)
	}
	return nil
}

// counted tells how far a download is.
type counted struct {
	r           io.Reader
	done, total int64
	tell        func(done, total int64)
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.done += int64(n)
	if c.tell != nil {
		c.tell(c.done, c.total)
	}
	return n, err
}

// publish gives a release its name, in place of one that is there.
func publish(dir, temp string, v fcapi.Version, m Manifest) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(temp, manifestFile), append(b, '\n'), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	to := filepath.Join(dir, v.String())
	old := temp + ".old"
	if err := os.Rename(to, old); err == nil {
		defer func() { _ = os.RemoveAll(old) }()
	}
	return os.Rename(temp, to)
}
