package api

import (
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/smolvm/smolvm/errdefs"
)

// How long a lease may be.
const (
	DefaultLease = time.Minute
	MinLease     = time.Second
	MaxLease     = 24 * time.Hour
)

// OwnerRequest says who decides that a VM may go.
type OwnerRequest struct {
	// Owner client binds the VM to a process of this host: when that is gone, the VM is stopped and deleted. Owner lease binds it to
	// whoever asks for the same again in time.
	Owner Owner `json:"owner,omitempty"`
	// ClientPID is that process; 0 = the one that asks.
	ClientPID int `json:"client_pid,omitempty"`
	// LeaseMs is for how long the lease holds from now on; 0 = 60 s.
	LeaseMs int64 `json:"lease_ms,omitempty"`
}

// Validate refuses what no owner rule is.
func (r OwnerRequest) Validate() error {
	switch r.Owner {
	case "", OwnerKeep, OwnerClient, OwnerLease:
	default:
		return errdefs.Invalid.Errorf("owner: %.80q is neither keep nor client nor lease", r.Owner)
	}
	switch least, most := MinLease.Milliseconds(), MaxLease.Milliseconds(); {
	case r.ClientPID < 0 || r.ClientPID > 0 && r.Owner != OwnerClient:
		return errdefs.Invalid.Errorf("client_pid: %d is for owner client only, and positive", r.ClientPID)
	case r.LeaseMs != 0 && r.Owner != OwnerLease:
		return errdefs.Invalid.Errorf("lease_ms: %d is for owner lease only", r.LeaseMs)
	case r.LeaseMs != 0 && (r.LeaseMs < least || r.LeaseMs > most):
		return errdefs.Invalid.Errorf("lease_ms: %d is not within %d to %d", r.LeaseMs, least, most)
	}
	return nil
}

// Lease is for how long an owner lease holds.
func (r OwnerRequest) Lease() time.Duration {
	if r.LeaseMs == 0 {
		return DefaultLease
	}
	return time.Duration(r.LeaseMs) * time.Millisecond
}

// Masked stands for a value that is not shown.
const Masked = "***"

// EnvChange changes the environment of a VM's commands.
type EnvChange struct {
	Set   map[string]string `json:"set,omitempty"`
	Unset []string          `json:"unset,omitempty"` // a name that is not set is no error
	// Replace drops all that is not in Set.
	Replace bool `json:"replace,omitempty"`
}

// Validate refuses names and values that cannot be, naming the variable.
func (c EnvChange) Validate() error {
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(c.Set)), c.Unset) {
		if err := validateEnvName(name); err != nil {
			return err
		}
	}
	for _, name := range c.Unset {
		if _, both := c.Set[name]; both {
			return errdefs.Invalid.Errorf("env: %s is to be set and unset at once", name)
		}
	}
	return ValidateEnv(c.Set)
}

func validateEnvName(name string) error {
	if name == "" || strings.Contains(name, "=") || strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar
	}) {
		return errdefs.Invalid.Errorf("env: %.80q is not a variable name", name)
	}
	return nil
}

// Apply returns env with the change, which env stays without.
func (c EnvChange) Apply(env map[string]string) (map[string]string, error) {
	next := map[string]string{}
	if !c.Replace {
		maps.Copy(next, env)
	}
	for _, name := range c.Unset {
		delete(next, name)
	}
	maps.Copy(next, c.Set)
	if len(next) == 0 {
		next = nil
	}
	return next, ValidateEnv(next)
}

// ValidateTTL refuses a time to live that cannot be.
func ValidateTTL(ttl time.Duration) error {
	if ttl < 0 || ttl%time.Millisecond != 0 {
		return errdefs.Invalid.Errorf("ttl: %s is negative, or no whole number of milliseconds", ttl)
	}
	return nil
}

// SSHImageRequest asks for files to boot VMs from that take logins with a key.
type SSHImageRequest struct {
	// SSHPublicKey is a public key in OpenSSH's form.
	SSHPublicKey string `json:"ssh_public_key,omitempty"`
	Name         string `json:"name,omitempty"` // default: debian-ssh-key
	// RootfsSizeMiB is the size of the disks of VMs that are made of it; 0 = 8192.
	RootfsSizeMiB int `json:"rootfs_size_mb,omitempty"`
}

// SSHImage is where these files are.
type SSHImage struct {
	KernelPath string `json:"kernel_path"`
	RootfsPath string `json:"rootfs_path"`
}
