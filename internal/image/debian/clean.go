package debian

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image/apt"
)

// cleaner copies mmdebstrap's tar without what must not be in an image, adds our files, and collects the SBOM.
type cleaner struct {
	archive apt.Archive // for the guest's apt
	now     time.Time   // of our files

	installed []api.Package     // from dpkg's status
	hashes    map[string]string // from the archive's lists, by hashKey
}

const (
	maxEntries  = 1 << 20
	statusFile  = "var/lib/dpkg/status"
	listsDir    = "var/lib/apt/lists/"
	sourcesFile = "etc/apt/sources.list.d/debian.sources"
)

// clean copies r to w and returns what is installed.
func (c *cleaner) clean(r io.Reader, w io.Writer) ([]api.Package, error) {
	c.hashes = map[string]string{}
	in := tar.NewReader(bufio.NewReaderSize(r, 1<<20))
	buf := bufio.NewWriterSize(w, 1<<20)
	out := tar.NewWriter(buf)
	for n := 0; ; n++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if n > maxEntries {
			return nil, errdefs.Image.Errorf("the image has more than %d files", maxEntries)
		}
		if err := c.entry(h, in, out); err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	sbom, err := c.sbom()
	if err != nil {
		return nil, err
	}
	if err := c.addOurs(out); err != nil {
		return nil, err
	}
	if err := out.Close(); err != nil {
		return nil, err
	}
	return sbom, buf.Flush()
}

// entry handles one file of the tar.
func (c *cleaner) entry(h *tar.Header, in io.Reader, out *tar.Writer) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if name == "" {
		h.Name = "./"
		return copyEntry(out, h, in)
	}
	if !filepath.IsLocal(name) {
		return errors.New("a name that leads out of the image")
	}
	dir := h.Typeflag == tar.TypeDir
	if strings.HasPrefix(name, listsDir) && strings.HasSuffix(name, "_Packages") {
		return c.readList(in)
	}
	if dropped(name, dir) {
		return nil
	}
	h.Name = name
	if dir {
		h.Name += "/"
	}
	if name == statusFile {
		var err error
		in, err = c.readStatus(in)
		if err != nil {
			return err
		}
	}
	return copyEntry(out, h, in)
}

func copyEntry(out *tar.Writer, h *tar.Header, in io.Reader) error {
	h.Format = tar.FormatPAX // the only one that takes every name, time and attribute
	h.Uname, h.Gname = "", ""
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(out, in)
	return err
}

// dropped reports whether a file is none of an image's: what differs per machine, what a boot makes, what is only of use
// to the build.
func dropped(name string, dir bool) bool {
	switch name {
	case "etc/machine-id", "var/lib/dbus/machine-id", "etc/hostname", "etc/hosts", "etc/resolv.conf",
		"etc/apt/sources.list", "etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
		"etc/.pwd.lock", "root/.ssh", "var/cache/ldconfig/aux-cache", "var/lib/systemd/random-seed":
		return true
	}
	for _, d := range []string{"dev/", "run/", "tmp/", "var/tmp/", "proc/", "sys/"} { // mounted over, or made at boot
		if strings.HasPrefix(name, d) {
			return true
		}
	}
	if dir {
		return false
	}
	for _, p := range []string{
		"etc/ssh/ssh_host_", "etc/apt/sources.list.d/", listsDir, "var/log/", "var/cache/apt/",
	} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	// Backups of what is beside them.
	return strings.HasSuffix(name, "-old") && (strings.HasPrefix(name, "var/cache/debconf/") || strings.HasPrefix(name, "var/lib/dpkg/"))
}

// addOurs writes the files that we put in.
func (c *cleaner) addOurs(out *tar.Writer) error {
	sources := c.archive.Sources(apt.GuestKeyring)
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: sourcesFile, Mode: 0o644, Size: int64(len(sources)), ModTime: c.now, Format: tar.FormatPAX,
	}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.WriteString(out, sources)
	return err
}
