package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/google/renameio/v2"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// schema numbers the form of both records. A record with a newer one is refused and never rewritten.
const schema = 1

// maxRecord bounds a record's file: an environment may be 1 MiB, and JSON can make it six times as long.
const maxRecord = 8 << 20

// Config is what a VM was created as, or was renamed and updated to since.
type Config struct {
	Schema      int        `json:"schema"`
	Config      api.Config `json:"config"`
	ImageDigest string     `json:"image_digest"`
	KernelID    string     `json:"kernel_id"`
	// RootfsMark and KernelMark tell files that were named by their paths from what is there later.
	RootfsMark string `json:"rootfs_mark,omitempty"`
	KernelMark string `json:"kernel_mark,omitempty"`

	DiskUUID  []byte    `json:"disk_uuid"`
	CreatedAt time.Time `json:"created_at"`
	// Was is the VM's id before its last change of name. In the middle of one its directory has that name still.
	Was string `json:"was,omitempty"`
}

// State is where a VM is in its life, and what runs for it.
type State struct {
	Schema int       `json:"schema"`
	State  api.State `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Owner  api.Owner `json:"owner"`
	Client *Process  `json:"client,omitempty"` // of owner client
	Lease  *Lease    `json:"lease,omitempty"`  // of owner lease
	BootID string    `json:"boot_id"`          // of the host, when the processes below were started

	Supervisor *Process        `json:"supervisor,omitempty"`
	Engine     json.RawMessage `json:"engine,omitempty"` // the engine's handle
	UID        int             `json:"uid,omitempty"`    // number of the monitor's user
	Cgroup     string          `json:"cgroup,omitempty"` // of the monitor, where one can be had

	Accelerator   string     `json:"accelerator,omitempty"` // for people
	KernelRelease string     `json:"kernel_release,omitempty"`
	StartedAt     *time.Time `json:"started_at,omitempty"`
	StoppedAt     *time.Time `json:"stopped_at,omitempty"`
	ExpiresAt     *time.Time `json:"expires_at,omitempty"` // for people: the supervisor counts by another clock
}

// Network is the network's policy since it was last changed. Until then there is none: Config has it.
type Network struct {
	Schema int               `json:"schema"`
	Policy api.NetworkPolicy `json:"policy"`
}

// Ports are the ports that are published since they were last changed, or got numbers. Until then there are none: Config has
// them.
type Ports struct {
	Schema int        `json:"schema"`
	Ports  []api.Port `json:"ports"`
}

// Record is all that is known of a VM.
type Record struct {
	Config  Config
	State   State
	Network *Network // nil when it is still as it was at first
	Ports   *Ports   // the same
}

// Published are the ports that are published, or will be at the next start.
func (r Record) Published() []api.Port {
	ports := r.Config.Config.Ports
	if r.Ports != nil {
		ports = r.Ports.Ports
	}
	return append([]api.Port{}, api.PortsWithDefaults(ports)...)
}

// Policy is the network's policy in force, or that of the next start.
func (r Record) Policy() api.NetworkPolicy {
	if r.Network != nil {
		return r.Network.Policy.WithDefaults()
	}
	return r.Config.Config.Network.WithDefaults()
}

// ErrNewer is in the chain of an error about a record that a newer SmolVM wrote.
var ErrNewer = errors.New("it was written by a newer smolvm")

// Read reads the record of the VM id. One that cannot be read is an error of class internal which names the command that
// removes it.
func (s *Store) Read(id string) (Record, error) {
	var r Record
	if err := api.ValidateID(id); err != nil {
		return r, err
	}
	err := s.load(id, configFile, &r.Config, &r.Config.Schema)
	if err == nil {
		err = s.load(id, stateFile, &r.State, &r.State.Schema)
	}
	if err == nil {
		r.Network, err = s.loadNetwork(id)
	}
	if err == nil {
		r.Ports, err = s.loadPorts(id)
	}
	if err == nil {
		err = r.check(id)
	}
	switch {
	case err == nil:
		return r, nil
	case !s.Exists(id): // also when it went between two files
		return r, NotFound(id)
	case errors.Is(err, ErrNewer):
		return r, errdefs.WrongState.Errorf("the record of the VM %s: %w", id, err).WithRemedy("use the program that made it, or a newer one")
	default:
		return r, errdefs.Internal.Errorf("the record of the VM %s is broken: %w", id, err).WithRemedy("smolvm rm -f %s", id)
	}
}

func (s *Store) load(id, name string, into any, number *int) error {
	f, err := os.Open(s.Path(id, name))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return err
	}
	if len(b) > maxRecord {
		return fmt.Errorf("%s has more than %d bytes", name, maxRecord)
	}
	if err := json.Unmarshal(b, into); err != nil {
		// A newer form need not fit into ours.
		var head struct {
			Schema int `json:"schema"`
		}
		if json.Unmarshal(b, &head) != nil || head.Schema <= schema {
			return fmt.Errorf("%s: %w", name, err)
		}
		*number = head.Schema
	}
	switch {
	case *number > schema:
		return fmt.Errorf("%s has schema %d, this smolvm knows %d: %w", name, *number, schema, ErrNewer)
	case *number < 1:
		return fmt.Errorf("%s has no schema number", name)
	}
	return nil
}

// loadNetwork reads a policy that was changed; nil where none was. One that cannot be read makes the record broken: the
// former one may allow what was taken back since.
func (s *Store) loadNetwork(id string) (*Network, error) {
	var n Network
	err := s.load(id, netFile, &n, &n.Schema)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = n.Policy.Validate()
	}
	return &n, err
}

// SavePolicy changes the policy of the VM id's network. The caller holds its lock.
func (s *Store) SavePolicy(id string, p api.NetworkPolicy) error {
	if err := p.Validate(); err != nil {
		return err
	}
	if !s.Exists(id) {
		return NotFound(id)
	}
	return write(s.Path(id, netFile), Network{Schema: schema, Policy: p})
}

// loadPorts reads ports that were changed; nil where none were.
func (s *Store) loadPorts(id string) (*Ports, error) {
	var p Ports
	err := s.load(id, portsFile, &p, &p.Schema)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = api.ValidatePorts(p.Ports)
	}
	return &p, err
}

// SavePorts changes the ports that the VM id publishes. The caller holds its lock.
func (s *Store) SavePorts(id string, ports []api.Port) error {
	if err := api.ValidatePorts(ports); err != nil {
		return err
	}
	if !s.Exists(id) {
		return NotFound(id)
	}
	return write(s.Path(id, portsFile), Ports{Schema: schema, Ports: ports})
}

// check refuses what a reader could stumble over.
func (r *Record) check(id string) error {
	if r.Config.Was == id {
		r.Config.Config.ID = id
	}
	if r.Config.Config.ID != id {
		return fmt.Errorf("%s is of the VM %q", configFile, r.Config.Config.ID)
	}
	if err := r.Config.Config.Validate(); err != nil {
		return err
	}
	if _, known := transitions()[r.State.State]; !known {
		return fmt.Errorf("%s: unknown state %q", stateFile, r.State.State)
	}
	if err := r.State.Rule().check(); err != nil {
		return fmt.Errorf("%s: %w", stateFile, err)
	}
	return nil
}

// SaveState writes the state of the VM id. The caller holds its lock. A step that the table does not have is refused.
func (s *Store) SaveState(id string, st State) error {
	var old State
	if err := s.load(id, stateFile, &old, &old.Schema); err != nil {
		if errors.Is(err, fs.ErrNotExist) && !s.Exists(id) {
			return NotFound(id)
		}
		return errdefs.Internal.Errorf("the record of the VM %s is broken: %w", id, err).WithRemedy("smolvm rm -f %s", id)
	}
	if old.State != st.State {
		if err := CanFollow(id, old.State, st.State); err != nil {
			return err
		}
	}
	st.Schema = schema
	return write(s.Path(id, stateFile), st)
}

func write(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return errdefs.Internal.Errorf("encode %s: %w", path, err)
	}
	return hostError("write "+path, renameio.WriteFile(path, append(b, '\n'), 0o600))
}
