package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/sys/fault"
)

// Discard deletes the VM id. The caller holds its lock, and nothing of the VM runs any more. The directory leaves its
// place in one step; what a kill leaves of it in the trash, Sweep removes.
func (s *Store) Discard(id string) error {
	if err := s.prepare(); err != nil {
		return err
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	to := filepath.Join(s.trashDir(), hex.EncodeToString(b[:]))
	err := os.Rename(s.Dir(id), to)
	if errors.Is(err, fs.ErrNotExist) {
		return NotFound(id)
	}
	if err != nil {
		return hostError("delete the VM "+id, err)
	}
	fault.Point("delete.renamed")
	return hostError("delete the VM "+id, os.RemoveAll(to))
}

// Reclaim gives the disk of the VM id back to whom its directory belongs: a monitor with a user id of its own may have had it, and
// who was to give it back was killed. The number may be another VM's next. The caller holds the lock, and nothing of the VM
// runs any more.
func (s *Store) Reclaim(id string) error {
	var its, disks unix.Stat_t
	err := errors.Join(unix.Stat(s.Dir(id), &its), unix.Lstat(s.Path(id, DiskFile), &disks))
	if err == nil && (its.Uid != disks.Uid || its.Gid != disks.Gid) {
		err = os.Lchown(s.Path(id, DiskFile), int(its.Uid), int(its.Gid))
	}
	return hostError("take the disk of the VM "+id+" back", err)
}

// Sweep removes what died half way: directories in the trash, and VMs whose making ended without Publish. It is cheap
// where there is nothing to do.
func (s *Store) Sweep() error {
	var errs []error
	entries, err := os.ReadDir(s.trashDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(s.trashDir(), e.Name())))
	}
	entries, err = os.ReadDir(s.vms())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		id, ok := hidden(e.Name())
		if !ok {
			continue
		}
		l, err := s.TryLock(id)
		if err != nil {
			continue // it is being made
		}
		errs = append(errs, os.RemoveAll(filepath.Join(s.vms(), e.Name())), l.Close())
	}
	return hostError("remove what was left behind", errors.Join(errs...))
}
