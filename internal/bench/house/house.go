// Package house makes homes of the benchmarks' own, which share the images of the user's, and tells what is left in them.
//
// Layer: part of the front bench. It may import lifecycle, api, errdefs.
package house

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// House is a home of the benchmark's own, with the images of the user's and nothing else.
type House struct {
	Dir     string
	Manager *lifecycle.Manager
}

// New makes a home below dir, with the images and kernels of from, and opens it. On an error nothing of it is left.
func New(ctx context.Context, dir, from string, open func(home string) (*lifecycle.Manager, error)) (_ *House, err error) {
	home, err := os.MkdirTemp(dir, "smolvm-bench-")
	if err != nil {
		return nil, errdefs.Host.Errorf("a home for the benchmark: %w", err)
	}
	h := &House{Dir: home}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	for _, name := range []string{"images", "kernels"} {
		if err := linkTree(ctx, filepath.Join(from, name), filepath.Join(home, name)); err != nil {
			return nil, errdefs.Host.Errorf("the images of the benchmark's home: %w", err)
		}
	}
	h.Manager, err = open(home)
	return h, err
}

// Close removes it.
func (h *House) Close() { _ = os.RemoveAll(h.Dir) }

// linkTree makes a copy of a tree whose files are the same ones, where the file systems allow it.
func linkTree(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		name := filepath.Join(to, rel)
		switch {
		case e.IsDir():
			return os.MkdirAll(name, 0o755)
		case e.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, name) //nolint:gosec // both trees are ours
		}
		if err := os.Link(path, name); !errors.Is(err, syscall.EXDEV) { //nolint:gosec // both trees are ours
			return err
		}
		return copyFile(path, name)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Use is what a home takes of the host: what could be left behind.
type Use struct {
	Disk  int64 // bytes, without images and kernels
	VMs   int   // directories of VMs, and what is in the trash
	Procs int   // processes that have something of it open
	FDs   int   // our own descriptors
}

// Use looks at the home. What a removed VM's processes still do when Remove has returned counts.
func (h *House) Use() (Use, error) {
	var u Use
	err := filepath.WalkDir(h.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == filepath.Join(h.Dir, "images") || path == filepath.Join(h.Dir, "kernels") {
			return fs.SkipDir
		}
		switch filepath.Dir(path) {
		case filepath.Join(h.Dir, "vms"), filepath.Join(h.Dir, "trash"):
			u.VMs++
		}
		i, err := e.Info()
		if err != nil {
			return err
		}
		if st, ok := i.Sys().(*syscall.Stat_t); ok {
			u.Disk += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		return u, errdefs.Host.Errorf("what is left in %s: %w", h.Dir, err)
	}
	if u.Procs, err = users(h.Dir); err != nil {
		return u, err
	}
	u.FDs, err = descriptors()
	return u, err
}

// reaped is how long a process that was told to end may take until we have collected it.
const reaped = 5 * time.Second

// descriptors counts our own, once those are closed that stand for processes about to end: a supervisor that has let go of
// its VM is collected in the background.
func descriptors() (int, error) {
	const own = "/proc/self/fd"
	for end := time.Now().Add(reaped); ; time.Sleep(time.Millisecond) { // nothing tells of a descriptor that we closed
		all, err := os.ReadDir(own)
		if err != nil {
			return 0, errdefs.Host.Errorf("list our descriptors: %w", err)
		}
		left := false
		for _, fd := range all {
			to, _ := os.Readlink(filepath.Join(own, fd.Name())) // that of the listing itself is gone
			left = left || to == "anon_inode:[pidfd]"
		}
		if !left || time.Now().After(end) {
			return len(all), nil
		}
	}
}

// users counts the processes, other than this one, that have a file below dir open.
func users(dir string) (int, error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return 0, errdefs.Host.Errorf("list processes: %w", err)
	}
	n := 0
	for _, p := range procs {
		if pid, err := strconv.Atoi(p.Name()); err != nil || pid == os.Getpid() {
			continue
		}
		at := filepath.Join("/proc", p.Name(), "fd")
		fds, _ := os.ReadDir(at) // it may have ended
		for _, fd := range fds {
			if name, err := os.Readlink(filepath.Join(at, fd.Name())); err == nil && strings.HasPrefix(name, dir+"/") {
				n++
				break
			}
		}
	}
	return n, nil
}

// recordFiles are what a VM's record is.
func recordFiles() []string { return []string{"config.json", "state.json"} }

// Populate makes n VMs: one, and copies of its record under other names.
func (h *House) Populate(ctx context.Context, n int) error {
	box, err := h.Manager.Create(ctx, api.Config{ID: "vm-0000"}, lifecycle.CreateOptions{})
	if err != nil {
		return err
	}
	for i := 1; i < n; i++ {
		id := fmt.Sprintf("vm-%04d", i)
		dir := filepath.Join(h.Dir, "vms", id)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return errdefs.Host.Errorf("make a record: %w", err)
		}
		for _, name := range recordFiles() {
			text, err := os.ReadFile(filepath.Join(h.Dir, "vms", box.ID, name))
			if err == nil {
				text = bytes.ReplaceAll(text, []byte(`"`+box.ID+`"`), []byte(`"`+id+`"`))
				err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
			}
			if err != nil {
				return errdefs.Host.Errorf("make a record: %w", err)
			}
		}
	}
	return nil
}

// ReadRecords reads what ls has to read.
func (h *House) ReadRecords() error {
	vms := filepath.Join(h.Dir, "vms")
	entries, err := os.ReadDir(vms)
	if err != nil {
		return err
	}
	for _, e := range entries {
		for _, name := range recordFiles() {
			if _, err := os.ReadFile(filepath.Join(vms, e.Name(), name)); err != nil {
				return err
			}
		}
	}
	return nil
}
