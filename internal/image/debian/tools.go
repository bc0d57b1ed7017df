package debian

import (
	"bufio"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/image/apt"
	"github.com/smolvm/smolvm/internal/sys/launch"
)

// tools are the host's programs that a build needs, by path.
type tools struct{ mmdebstrap, unshare string }

// findTools looks for them, and for the subordinate ids of an ordinary user. What is missing is told with the command
// that brings it.
func findTools() (tools, error) {
	var t tools
	var err error
	if t.mmdebstrap, err = apt.Tool("mmdebstrap", "mmdebstrap"); err != nil {
		return t, err
	}
	if t.unshare, err = apt.Tool("unshare", "util-linux"); err != nil {
		return t, err
	}
	if launch.IsRoot() {
		return t, nil
	}
	if _, err = apt.Tool("newuidmap", "uidmap"); err != nil {
		return t, err
	}
	u, err := user.Current()
	if err != nil {
		return t, errdefs.Host.Errorf("who am I: %w", err)
	}
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		f, err := os.Open(file)
		if err == nil {
			ok := hasRange(f, u.Username, u.Uid)
			_ = f.Close()
			if ok {
				continue
			}
		}
		return t, errdefs.Host.Errorf("user %s has no 65536 subordinate ids in %s", u.Username, file).
			WithRemedy("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", u.Username)
	}
	return t, nil
}

// minIDs is what a Debian system needs: nobody is 65534.
const minIDs = 65535

// hasRange reports whether subuid(5) r gives the user a range that a Debian system fits into.
func hasRange(r io.Reader, name, uid string) bool {
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.Split(strings.TrimSpace(s.Text()), ":")
		if len(f) != 3 || (f[0] != name && f[0] != uid) {
			continue
		}
		if n, err := strconv.ParseUint(f[2], 10, 32); err == nil && n >= minIDs {
			return true
		}
	}
	return false
}
