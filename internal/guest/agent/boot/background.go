package boot

import (
	"os"
	"slices"
	"time"

	"github.com/smolvm/smolvm/internal/guest/agent/command"
)

// sshdScript starts the SSH service again in a guest that had it before: the host's first connection makes the key.
const sshdScript = `mkdir -p -m 0755 /run/sshd && exec /usr/sbin/sshd`

// startBackground does what nobody waits for, where the guest has what it takes.
func (s *System) startBackground() {
	for _, job := range []struct {
		id, script string
		needs      []string
	}{
		{trustPrefix + "nss", nssScript, []string{"/usr/bin/certutil"}},
		{trustPrefix + "sshd", sshdScript, []string{"/etc/ssh/sshd_config.d/smolvm.conf", "/etc/ssh/ssh_host_ed25519_key", "/usr/sbin/sshd"}},
	} {
		if slices.ContainsFunc(job.needs, missing) {
			continue
		}
		spec := command.Spec{ID: job.id, Script: job.script, Dir: "/", User: "root", Timeout: time.Minute}
		if _, err := s.runner.Start(spec, nobody{}); err != nil {
			s.log.Warn("in the background", "job", job.id, "err", err)
		}
	}
}

// missing reports whether there is no such file, or nothing in it.
func missing(path string) bool {
	st, err := os.Stat(path)
	return err != nil || st.Size() == 0
}

// nobody reads what a command prints.
type nobody struct{}

// Stdout implements command.Sink.
func (nobody) Stdout([]byte) error { return nil }

// Stderr implements command.Sink.
func (nobody) Stderr([]byte) error { return nil }
