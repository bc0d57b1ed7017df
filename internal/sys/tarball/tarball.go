// Package tarball packs a host's directory into a tar and unpacks one that cannot be trusted, such as a guest's.
//
// Layer: leaf. It imports none of ours.
package tarball

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

const (
	maxName    = 4096    // bytes of a name or a link's target
	maxDepth   = 256     // directories above an entry: each costs time for each
	maxEntries = 1 << 22 // of one archive
	maxDirs    = 1 << 18 // whose modes are set at the end
)

// RefusedError tells what of an archive was left out because it would reach outside, or be a device.
type RefusedError struct {
	Count int
	First string // the first one and why
}

func (e *RefusedError) Error() string {
	if e.Count == 1 {
		return "left out " + e.First
	}
	return fmt.Sprintf("left out %d entries, the first: %s", e.Count, e.First)
}

// ErrTooLarge is the cause when an archive has more in it than allowed.
var ErrTooLarge = errors.New("more than allowed")

// localName cleans the name of an entry. It refuses what would lead outside of where it is unpacked.
func localName(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("it has no name")
	case len(name) > maxName:
		return "", errors.New("its name is too long")
	case strings.Count(name, "/") > maxDepth:
		return "", errors.New("it is too deep")
	case strings.HasPrefix(name, "/"):
		return "", errors.New("its name is absolute")
	case strings.Contains(name, "\x00"):
		return "", errors.New("its name has a NUL byte")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errors.New(`its name has ".." in it`)
		}
	}
	return path.Clean(name), nil
}

// localTarget refuses a symlink at name (clean, below real directories only) whose target could lead outside. Only the
// target's beginning may go up: as no link is ever made that leads outside, going down does not either.
func localTarget(name, target string) error {
	switch {
	case target == "" || len(target) > maxName || strings.Contains(target, "\x00"):
		return errors.New("its target is none")
	case strings.HasPrefix(target, "/"):
		return fmt.Errorf("its target %q is absolute", target)
	}
	depth := strings.Count(name, "/")
	down := false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 || down {
				return fmt.Errorf("its target %q may lead outside", target)
			}
		default:
			down = true
		}
	}
	return nil
}
