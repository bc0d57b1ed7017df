package debian

import (
	"bytes"
	"cmp"
	"io"
	"slices"
	"strings"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image/apt"
)

const (
	maxStatus = 64 << 20
	maxKnown  = 1 << 20
)

func hashKey(name, version, arch string) string { return name + " " + version + " " + arch }

// readList takes the hashes out of one of the archive's Packages lists.
func (c *cleaner) readList(r io.Reader) error {
	return apt.Stanzas(r, func(s apt.Stanza) error {
		if len(c.hashes) >= maxKnown {
			return errdefs.Image.Errorf("the archive lists more than %d packages", maxKnown)
		}
		if sum := s["SHA256"]; len(sum) == 64 {
			c.hashes[hashKey(s["Package"], s["Version"], s["Architecture"])] = strings.ToLower(sum)
		}
		return nil
	})
}

// readStatus takes the installed packages out of dpkg's status, and returns it to be read once more.
func (c *cleaner) readStatus(r io.Reader) (io.Reader, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxStatus))
	if err != nil {
		return nil, err
	}
	c.installed, err = parseStatus(bytes.NewReader(b))
	return bytes.NewReader(b), err
}

// parseStatus reads dpkg's status file: what is installed. A package that is half installed is an error.
func parseStatus(r io.Reader) ([]api.Package, error) {
	var found []api.Package
	err := apt.Stanzas(r, func(s apt.Stanza) error {
		switch status := strings.Fields(s["Status"]); {
		case len(status) != 3:
			return errdefs.Image.Errorf("package %q has the status %q", s["Package"], s["Status"])
		case status[2] == "installed":
			found = append(found, api.Package{Name: s["Package"], Version: s["Version"], Arch: s["Architecture"]})
		case status[2] != "config-files" && status[2] != "not-installed":
			return errdefs.Image.Errorf("package %s is %s only", s["Package"], status[2])
		}
		return nil
	})
	return found, err
}

// sbom joins both: every installed package with the hash that the archive's signature vouches for.
func (c *cleaner) sbom() ([]api.Package, error) {
	if len(c.installed) == 0 {
		return nil, errdefs.Image.Errorf("dpkg's status is not in the image")
	}
	for i, p := range c.installed {
		sum, ok := c.hashes[hashKey(p.Name, p.Version, p.Arch)]
		if !ok {
			return nil, errdefs.Image.Errorf("%s %s (%s) is installed but in no list of the archive", p.Name, p.Version, p.Arch)
		}
		c.installed[i].SHA256 = sum
	}
	slices.SortFunc(c.installed, func(a, b api.Package) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch))
	})
	return c.installed, nil
}
