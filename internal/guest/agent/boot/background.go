package boot

import (
	"os"
	"time"

	"github.com/smolvm/smolvm/internal/guest/agent/command"
)

// startBackground does what nobody waits for, where the guest has what it takes.
func (s *System) startBackground() {
	if !missing("/usr/bin/certutil") {
		s.startJob(trustPrefix+"nss", nssScript)
	}
	if !s.wantsLogins() {
		return
	}
	if err := s.writeLoginEnv(); err != nil {
		s.log.Warn("logins do not have the commands' environment", "err", err)
	}
	s.logins = time.Now()
	s.startJob(trustPrefix+"sshd", sshdScript)
}

func (s *System) startJob(id, script string) {
	spec := command.Spec{ID: id, Script: script, Dir: "/", User: "root", Timeout: time.Minute}
	if _, err := s.runner.Start(spec, nobody{}); err != nil {
		s.log.Warn("in the background", "job", id, "err", err)
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
