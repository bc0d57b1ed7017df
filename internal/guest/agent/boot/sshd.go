package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/sys/sshenv"
)

const (
	startWait  = 20 * time.Second // that the SSH service may take to its start
	reloadWait = 30 * time.Second // and to begin anew with its configuration
	pollLogins = 20 * time.Millisecond
)

// What the SSH service of a guest is made of.
const (
	sshdProgram = "/usr/sbin/sshd"
	sshdPID     = "/run/sshd.pid"
)

// sshdScript starts the SSH service. The lock is that of the host, which makes a guest ready for logins in the same way. RSA keys
// are not made: that takes a minute under emulation.
const sshdScript = `set -eu
umask 077
mkdir -p -m 0755 /run/sshd /etc/ssh
exec 9>/run/smolvm-ssh.lock
flock 9
key=/etc/ssh/ssh_host_ed25519_key
[ -s $key ] || ssh-keygen -q -t ed25519 -N '' -C "$(hostname)" -f $key
if ! { read -r pid </run/sshd.pid && kill -0 "$pid"; } 2>/dev/null; then
	/usr/sbin/sshd 9>&- </dev/null
fi`

// wantsLogins reports whether the SSH service is to run: keys were given, or it ran before, and it is there.
func (s *System) wantsLogins() bool {
	switch {
	case missing(sshdProgram):
		if len(s.conf.GetAuthorizedKeys()) > 0 {
			s.log.Warn("keys may log in, and there is no " + sshdProgram)
		}
		return false
	case len(s.conf.GetAuthorizedKeys()) > 0:
		return true
	}
	return !missing(sshenv.File) && !missing("/etc/ssh/ssh_host_ed25519_key")
}

// writeLoginEnv gives logins the environment of commands. The file is root's alone.
func (s *System) writeLoginEnv() error {
	if err := os.MkdirAll(filepath.Dir(sshenv.File), 0o755); err != nil {
		return err
	}
	return update(sshenv.File, sshenv.Snippet(s.runner.RootEnv())+"\n", 0o600)
}

// EnvironmentChanged gives logins the environment that commands get from now on, where there are any.
func (s *System) EnvironmentChanged() error {
	if !s.wantsLogins() {
		return nil
	}
	if err := s.writeLoginEnv(); err != nil {
		return fmt.Errorf("the environment of logins: %w", err)
	}
	s.reloadLogins()
	return nil
}

// reloadLogins has the SSH service read its configuration again, and waits until it listens again; sessions go on. It need not run.
func (s *System) reloadLogins() {
	// One that is just starting may have read the former.
	for _, ok := sshd(); !ok && time.Since(s.logins) < startWait; _, ok = sshd() {
		time.Sleep(pollLogins)
	}
	back, err := hangUpLogins()
	if err == nil && back != nil {
		err = back()
	}
	if err != nil {
		s.log.Warn("the SSH service does not know the new environment", "err", err)
	}
}

// hangUpLogins has the SSH service begin anew, and returns what waits until it listens again; nil where it does not run. Where it
// is frozen it begins anew before it does anything else.
func hangUpLogins() (back func() error, err error) {
	pid, ok := sshd()
	if !ok {
		return nil, nil
	}
	former, err := os.Stat(sshdPID)
	if err != nil {
		return nil, fmt.Errorf("the SSH service: %w", err)
	}
	if err := unix.Kill(pid, unix.SIGHUP); err != nil {
		return nil, fmt.Errorf("the SSH service: %w", err)
	}
	return func() error {
		// It takes the file away, and writes it again once it listens.
		for end := time.Now().Add(reloadWait); time.Now().Before(end); time.Sleep(pollLogins) {
			if now, err := os.Stat(sshdPID); err == nil && (!os.SameFile(now, former) || !now.ModTime().Equal(former.ModTime())) {
				return nil
			}
		}
		return errors.New("the SSH service has not come back")
	}, nil
}

// sshd is the SSH service that runs.
func sshd() (pid int, ok bool) {
	b, err := readPlain(sshdPID)
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0, false
	}
	name, err := os.ReadFile(fmt.Sprintf("%s/%d/comm", proc, pid))
	return pid, err == nil && strings.TrimSpace(string(name)) == "sshd"
}
