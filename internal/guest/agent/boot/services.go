package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// plainDirs are bound from the disk over the overlay: container engines put overlays of their own there, and overlayfs
// refuses an overlay as upper directory.
func plainDirs() []string {
	return []string{"/var/lib/docker", "/var/lib/containers", "/var/lib/containerd"}
}

// bindPlainDirs gives container engines directories that are no overlay. What an image brings there is not seen.
func (s *System) bindPlainDirs() error {
	if s.disk == nil {
		return nil
	}
	// The disk's own mount is hidden below the new root: its descriptor leads there.
	disk := fmt.Sprintf("%s/self/fd/%d", proc, s.disk.Fd())
	for _, dir := range plainDirs() {
		from := filepath.Join(disk, "plain", filepath.Base(dir))
		if err := os.MkdirAll(from, 0o711); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
		if err := unix.Mount(from, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", dir, err)
		}
	}
	return nil
}

// setting is a kernel's parameter.
type setting struct{ name, value string }

// settings are what servers, editors and container engines otherwise ask their users to set.
func settings() []setting {
	return []setting{
		{"kernel/core_pattern", "|/bin/false"}, // no core dumps, whatever a program's limit is
		{"fs/inotify/max_user_watches", "524288"},
		{"fs/inotify/max_user_instances", "1024"},
		{"vm/max_map_count", "262144"},
		{"net/ipv4/ip_unprivileged_port_start", "0"},
		{"net/ipv4/ping_group_range", "0 2147483647"},
	}
}

// tune sets parameters and limits. A kernel that lacks one does without.
func (s *System) tune() {
	for _, p := range settings() {
		err := os.WriteFile(filepath.Join(proc, "sys", p.name), []byte(p.value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("kernel parameter", "name", p.name, "err", err)
		}
	}
	for _, l := range []struct {
		what int
		to   unix.Rlimit
	}{
		{unix.RLIMIT_CORE, unix.Rlimit{}},
		{unix.RLIMIT_MEMLOCK, unix.Rlimit{Cur: 64 << 20, Max: unix.RLIM_INFINITY}},
		{unix.RLIMIT_NPROC, unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}}, // the control group bounds it
	} {
		if err := unix.Setrlimit(l.what, &l.to); err != nil {
			s.log.Warn("limit", "number", l.what, "err", err)
		}
	}
}
