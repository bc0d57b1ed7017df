package ssh

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/smolvm/smolvm/errdefs"
)

// files are where what SSH needs is.
type files struct {
	home    string // $SMOLVM_HOME
	program string // ours
}

func (f files) dir() string                 { return filepath.Join(f.home, "ssh") }
func (f files) key() string                 { return filepath.Join(f.dir(), "id_ed25519") }
func (f files) lock() string                { return filepath.Join(f.home, "locks", "ssh") }
func (f files) vm(id, name string) string   { return filepath.Join(f.home, "vms", id, name) }
func (f files) knownHosts(id string) string { return f.vm(id, "known_hosts") }

// alias is the VM's name for SSH.
func alias(id string) string { return "smolvm-" + id }

// config is the part of an ssh_config(5) that is about one VM. Nothing is asked and nothing believed: the keys come over the link.
func (f files) config(id string) (string, error) {
	for _, path := range []string{f.home, f.program} {
		if strings.ContainsAny(path, "\"\n\r") {
			return "", errdefs.Invalid.Errorf("ssh: OpenSSH's configuration cannot hold the path %q", path).WithRemedy("move it")
		}
	}
	// The command goes to the user's shell, and everything through OpenSSH's own percent signs.
	shell := func(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
	percent := func(s string) string { return strings.ReplaceAll(s, "%", "%%") }
	return fmt.Sprintf(`Host %[1]s
  User root
  HostName %[1]s
  HostKeyAlias %[1]s
  ProxyCommand %[2]s
  IdentityFile "%[3]s"
  IdentitiesOnly yes
  PreferredAuthentications publickey
  UserKnownHostsFile "%[4]s"
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  ForwardAgent no
  ForwardX11 no
  CheckHostIP no
  LogLevel ERROR
`, alias(id), percent(shell(f.program)+" --home "+shell(f.home)+" ssh-proxy "+id), percent(f.key()), percent(f.knownHosts(id))), nil
}

// saveConfig writes it for our own use of the client.
func (f files) saveConfig(id string) (string, error) {
	text, err := f.config(id)
	if err != nil {
		return "", err
	}
	path := f.vm(id, "ssh_config")
	if err := renameio.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", errdefs.Host.Errorf("ssh: %w", err)
	}
	return path, nil
}

// newFiles finds our own program.
func newFiles(home string) (files, error) {
	program, err := os.Executable()
	if err != nil {
		return files{}, errdefs.Host.Errorf("ssh: find this program: %w", err)
	}
	return files{home, program}, nil
}
