package store

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/clock"
	"github.com/smolvm/smolvm/internal/sys/pidfd"
)

// Process names a process so that a reused number is told from it.
type Process struct {
	PID        int    `json:"pid"`
	StartTicks uint64 `json:"start_ticks"`
}

// Lives reports whether the process still is there, which was written down in a boot of the host.
func (p *Process) Lives(bootID string) bool {
	if p == nil {
		return false
	}
	if now, err := HostBootID(); err == nil && now != bootID {
		return false
	}
	fd, err := pidfd.Open(p.PID, p.StartTicks)
	if err == nil {
		_ = fd.Close()
	}
	return err == nil
}

// Lease is for how long a VM may stay that nobody asks for again. Until is a time of clock.Monotonic in the boot of the record.
type Lease struct {
	For   time.Duration `json:"for_ns"`
	Until time.Duration `json:"until_ns"`
}

// Left is for how long it still holds.
func (l *Lease) Left() time.Duration { return l.Until - clock.Monotonic() }

// Rule says who decides that a VM may go.
type Rule struct {
	Owner  api.Owner
	Client *Process
	Lease  *Lease
}

// NewRule makes a rule of what is asked for, as of now. A client is a process of our own user.
func NewRule(r api.OwnerRequest) (Rule, error) {
	rule := Rule{Owner: cmp.Or(r.Owner, api.OwnerKeep)}
	if err := r.Validate(); err != nil {
		return rule, err
	}
	switch rule.Owner {
	case api.OwnerLease:
		rule.Lease = &Lease{For: r.Lease(), Until: clock.Monotonic() + r.Lease()}
	case api.OwnerClient:
		pid := cmp.Or(r.ClientPID, os.Getpid())
		ticks, err := pidfd.OwnStartTicks(pid)
		if errors.Is(err, pidfd.ErrForeign) {
			return rule, errdefs.Denied.Errorf("client_pid: process %d: %w", pid, err).WithRemedy("name a process of your own, or none")
		}
		if err != nil {
			return rule, errdefs.Invalid.Errorf("client_pid: process %d: %w", pid, err)
		}
		rule.Client = &Process{PID: pid, StartTicks: ticks}
	}
	return rule, nil
}

func (r Rule) check() error {
	switch {
	case r.Owner == api.OwnerKeep, r.Owner == api.OwnerClient && r.Client != nil:
		return nil
	case r.Owner == api.OwnerLease && r.Lease != nil && r.Lease.For > 0:
		return nil
	}
	return fmt.Errorf("owner %q without a client or a lease", r.Owner)
}

// Rule is who decides that the VM may go.
func (s *State) Rule() Rule { return Rule{s.Owner, s.Client, s.Lease} }

// SetRule changes it. The record must be one of this boot of the host.
func (s *State) SetRule(r Rule) { s.Owner, s.Client, s.Lease = r.Owner, r.Client, r.Lease }

// Renew begins a lease anew.
func (s *State) Renew() {
	if s.Owner == api.OwnerLease {
		s.Lease = &Lease{For: s.Lease.For, Until: clock.Monotonic() + s.Lease.For}
	}
}

// AtStart is the rule while the VM starts: a lease begins when it runs. Who has it cannot do anything with the VM before, and may
// not even know its id.
func (r Rule) AtStart() Rule {
	if r.Owner == api.OwnerLease {
		return Rule{Owner: api.OwnerKeep}
	}
	return r
}

// Abandoned reports whether nobody is left who would delete the VM.
func (s *State) Abandoned() bool {
	switch s.Owner {
	case api.OwnerClient:
		return !s.Client.Lives(s.BootID)
	case api.OwnerLease:
		now, err := HostBootID()
		return err == nil && now != s.BootID || s.Lease.Left() <= 0
	default:
		return false
	}
}

// AbandonedReason says so in words.
func (r Rule) AbandonedReason() string {
	if r.Owner == api.OwnerLease {
		return "nobody renewed its lease of " + r.Lease.For.String()
	}
	return "its client is gone"
}
