package apt

import (
	"os/exec"
	"path/filepath"

	"github.com/smolvm/smolvm/errdefs"
)

// Tool returns the path of a program of Debian's package pkg. System directories are looked at too, which an ordinary
// user's PATH often lacks.
func Tool(name, pkg string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return filepath.Abs(p)
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", errdefs.Host.Errorf("%s is not installed", name).WithRemedy("sudo apt-get install -y %s", pkg)
}
