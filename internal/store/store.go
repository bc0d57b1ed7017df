// Package store keeps the directories of VMs below $SMOLVM_HOME: records, locks, logs, names and paths. It knows no engine
// and starts nothing. Records carry a schema number, writes are atomic, and what is being made or deleted can be told
// from what is there.
//
// Layer: store, below lifecycle and supervisor. It may import api, errdefs, internal/sys.
package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/lock"
)

// What lies in the directory of a VM.
const (
	configFile = "config.json"
	stateFile  = "state.json"
	eventsFile = "events.jsonl"
	netFile    = "network.json"
	portsFile  = "ports.json"

	DiskFile          = "disk.ext4"
	NamesFile         = "names.jsonl"
	ConsoleFile       = "console.log"
	OutputFile        = "output.log"
	SupervisorLogFile = "supervisor.log"
	ControlSocket     = "control.sock"
	AgentSocket       = "agent.sock"
)

// newPrefix begins the name of a directory that is being made. No id begins so.
const newPrefix = ".new-"

// Store is the directory of all VMs.
type Store struct{ home string }

// New returns the store below home, which is made when it is first written to.
func New(home string) (*Store, error) {
	if home == "" || !filepath.IsAbs(home) {
		return nil, errdefs.Invalid.Errorf("SMOLVM_HOME: %q is not an absolute path", home)
	}
	return &Store{home: filepath.Clean(home)}, nil
}

func (s *Store) vms() string               { return filepath.Join(s.home, "vms") }
func (s *Store) trashDir() string          { return filepath.Join(s.home, "trash") }
func (s *Store) locksDir() string          { return filepath.Join(s.home, "locks") }
func (s *Store) lockPath(id string) string { return filepath.Join(s.locksDir(), "vm-"+id) }

// Home is the directory that holds everything.
func (s *Store) Home() string { return s.home }

// Dir is the directory of the VM id.
func (s *Store) Dir(id string) string { return filepath.Join(s.vms(), id) }

// Path is a file in the directory of the VM id.
func (s *Store) Path(id, name string) string { return filepath.Join(s.vms(), id, name) }

// prepare makes the directories of the store, for our user alone.
func (s *Store) prepare() error {
	if err := os.MkdirAll(s.home, 0o700); err != nil {
		return hostError("make "+s.home, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(s.home, &st); err != nil {
		return hostError("look at "+s.home, err)
	}
	if int(st.Uid) != os.Geteuid() {
		return errdefs.Denied.Errorf("%s belongs to user %d, not to you", s.home, st.Uid).WithRemedy("set SMOLVM_HOME to a directory of your own")
	}
	if st.Mode&0o077 != 0 {
		if err := os.Chmod(s.home, 0o700); err != nil { //nolint:gosec // a directory
			return hostError("close "+s.home+" to others", err)
		}
	}
	for _, dir := range []string{s.vms(), s.trashDir(), s.locksDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return hostError("make "+dir, err)
		}
	}
	return nil
}

// Exists reports whether there is a VM id, whatever its record says.
func (s *Store) Exists(id string) bool {
	if api.ValidateID(id) != nil {
		return false
	}
	_, err := os.Lstat(s.Dir(id))
	return err == nil
}

// IDs lists the VMs, by name.
func (s *Store) IDs() ([]string, error) {
	entries, err := os.ReadDir(s.vms())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, hostError("list the VMs", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && api.ValidateID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// TryLock takes the lock of the VM id, or returns lock.ErrHeld at once. Who holds it may write the VM's record.
func (s *Store) TryLock(id string) (*lock.Lock, error) {
	if err := api.ValidateID(id); err != nil {
		return nil, err
	}
	l, err := lock.Try(s.lockPath(id))
	if err != nil && !errors.Is(err, lock.ErrHeld) {
		return nil, hostError("lock the VM "+id, err)
	}
	return l, err
}

// Locked reports whether anybody holds the lock of the VM id: its supervisor, its monitor, or a command at work on it.
func (s *Store) Locked(id string) (bool, error) {
	held, err := lock.Held(s.lockPath(id))
	if err != nil {
		return false, hostError("probe the lock of the VM "+id, err)
	}
	return held, nil
}

// NotFound is the error for an id that is not there.
func NotFound(id string) error {
	return errdefs.NotFound.Errorf("there is no VM %q", id).WithRemedy("smolvm ls -a")
}

// hostError says what could not be done on the host; a full disk is a class of its own.
func hostError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		return errdefs.Exhausted.Errorf("%s: %w", what, err).WithRemedy("make room on the disk of $SMOLVM_HOME: smolvm prune, smolvm rm ID, smolvm image rm NAME")
	case errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		return errdefs.Host.Errorf("%s: %w", what, err).WithRemedy("smolvm doctor; another place is chosen by smolvm --home DIR, or SMOLVM_HOME")
	default:
		return errdefs.Host.Errorf("%s: %w", what, err)
	}
}

// hidden reports whether a name in vms/ is of a VM that is being made, and of which.
func hidden(name string) (id string, ok bool) {
	id, ok = strings.CutPrefix(name, newPrefix)
	return id, ok && api.ValidateID(id) == nil
}
