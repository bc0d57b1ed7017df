package release

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine/firecracker"
	"github.com/smolvm/smolvm/internal/engine/firecracker/fcapi"
	"github.com/smolvm/smolvm/internal/engine/monitor"
)

// A release's programs, below a directory: "release-v1.12.1-x86_64/firecracker-v1.12.1-x86_64".
var programName = regexp.MustCompile(`^(firecracker|jailer)-v(\d{1,4}\.\d{1,4}\.\d{1,4})-([a-z0-9_]+)$`)

// unpack takes the programs out of an archive, and nothing else, and asks them what they are. want is the version that it
// must be of, zero: any that is not refused.
func unpack(ctx context.Context, archive io.Reader, dir string, want fcapi.Version, m *Manifest) (fcapi.Version, error) {
	v, err := extract(archive, dir, m)
	if err != nil {
		return v, errdefs.Image.Errorf("%s: %w", m.Source, err)
	}
	if want != (fcapi.Version{}) && v != want {
		return v, errdefs.Image.Errorf("%s is release %s, not %s", m.Source, v, want)
	}
	if err := firecracker.Refused(v); err != nil {
		return v, err
	}
	said, err := monitor.Ask(ctx, filepath.Join(dir, "firecracker"))
	var says fcapi.Version
	if err == nil {
		says, err = fcapi.ParseVersion(said)
	}
	if err != nil {
		return v, errdefs.Image.Errorf("%s: its program does not run here: %w", m.Source, err)
	}
	if says != v {
		return v, errdefs.Image.Errorf("%s: its program says that it is %s", m.Source, says)
	}
	m.Version = v.String()
	return v, nil
}

func extract(archive io.Reader, dir string, m *Manifest) (v fcapi.Version, err error) {
	unzipped, err := gzip.NewReader(archive)
	if err != nil {
		return v, err
	}
	in := tar.NewReader(io.LimitReader(unzipped, 4*maxArchive))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return v, err
		}
		name := programName.FindStringSubmatch(path.Base(h.Name))
		if name == nil || h.Typeflag != tar.TypeReg || m.Files[name[1]] != "" {
			continue
		}
		if name[3] != arch() {
			return v, fmt.Errorf("it is for %s, and this machine is %s", name[3], arch())
		}
		if name[1] == "firecracker" {
			if v, err = fcapi.ParseDir(name[2]); err != nil {
				return v, err
			}
		}
		if m.Files[name[1]], err = put(in, h.Size, filepath.Join(dir, name[1])); err != nil {
			return v, fmt.Errorf("%s: %w", name[0], err)
		}
	}
	if m.Files["firecracker"] == "" {
		return v, errors.New("there is no Firecracker in it")
	}
	return v, nil
}

// put writes a program and returns its digest.
func put(in io.Reader, size int64, path string) (digest string, err error) {
	if size > maxProgram {
		return "", fmt.Errorf("it has %d bytes, more than %d", size, maxProgram)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return "", err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if err := f.Chmod(0o755); err != nil { // whatever the umask is: a monitor has another user
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(in, size)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), f.Sync()
}
