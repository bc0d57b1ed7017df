package launch

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// workDir is the working directory in a root of its own.
	workDir = "/run"
	// maxLinks bounds the symbolic links of one path, as the kernel does.
	maxLinks = 40
)

// newRoot is a root in the making: a small file system in memory into which parts of the present one are mounted. All parts
// are held by descriptors before it is put anywhere, so that it may cover them.
type newRoot struct {
	dirs  []string          // to be made
	files []string          // to be made as what something is mounted on
	links map[string]string // symbolic links on the way to what is named
	parts []part
}

// part is a file or a directory of the present root that is in the new one, too, under the same name.
type part struct {
	at       string
	fd       int
	dir      bool
	writable bool // or a device: what it is is not changed
}

// root gives the program a root of its own. Where that cannot be had, it is told, and the present one stays.
func (c *confiner) root() error {
	if !c.plan.Root || c.plan.Refused != "" {
		return nil
	}
	if c.plan.RootRefused != "" {
		c.miss("root: it can have none of its own: %s", c.plan.RootRefused)
		return nil
	}
	r := &newRoot{links: map[string]string{}}
	defer r.close()
	if err := r.take(c.plan); err != nil {
		c.miss("root: it can have none of its own: %v", r.refused(err))
		return nil
	}
	base, err := r.build()
	if err == nil {
		err = c.proc(path.Join(base, "proc"))
	}
	if err != nil {
		if base != "" {
			_ = unix.Unmount(base, unix.MNT_DETACH)
		}
		c.miss("root: it can have none of its own: %v", r.refused(err))
		return nil
	}
	if err := pivot(base); err != nil {
		c.miss("root: it can have none of its own: %v", r.refused(err))
		return unix.Unmount(base, unix.MNT_DETACH)
	}
	if c.plan.WorkDir != "" {
		if err := os.Chdir(workDir); err != nil {
			return err
		}
	}
	c.have("root")
	return nil
}

func (r *newRoot) refused(err error) error {
	if remedy := NamespacesRemedy(); remedy != "" && Refused(err) {
		return fmt.Errorf("%w (%s)", err, remedy)
	}
	return err
}

func (r *newRoot) close() {
	for _, p := range r.parts {
		_ = unix.Close(p.fd)
	}
}

// take opens what the plan names. What lies in /proc is passed over: those are the program's own descriptors, which its own
// /proc has as well.
func (r *newRoot) take(p Plan) error {
	// Nothing that is done here is to be seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	for _, set := range []struct {
		paths    []string
		writable bool
	}{{p.ReadDirs, false}, {[]string{p.Program}, false}, {p.ReadFiles, false}, {p.WriteFiles, true}, {p.Devices, true}} {
		for _, name := range present(set.paths) {
			if strings.HasPrefix(name, "/proc/") {
				continue
			}
			if err := r.add(name, set.writable); err != nil {
				return err
			}
		}
	}
	r.mkdir("/proc")
	if p.WorkDir == "" {
		return nil
	}
	fd, err := clone(".", false)
	if err != nil {
		return fmt.Errorf("take its working directory along: %w", err)
	}
	r.mkdir(workDir)
	r.parts = append(r.parts, part{at: workDir, fd: fd, dir: true, writable: true})
	return nil
}

// add opens one path, and notes what leads to it.
func (r *newRoot) add(name string, writable bool) error {
	at, err := r.follow(name)
	if err != nil {
		return err
	}
	if r.holds(at) {
		return nil
	}
	info, err := os.Lstat(at)
	if err != nil {
		return err
	}
	fd, err := clone(at, info.IsDir())
	if err != nil {
		return fmt.Errorf("take %s along: %w", at, err)
	}
	if info.IsDir() {
		r.mkdir(at)
	} else {
		r.mkdir(path.Dir(at))
		r.files = append(r.files, at)
	}
	r.parts = append(r.parts, part{at: at, fd: fd, dir: info.IsDir(), writable: writable})
	return nil
}

// clone makes a mount of what is at name, which is nowhere yet.
func clone(name string, whole bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if whole {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(unix.AT_FDCWD, name, flags)
}

// follow returns the path that a path really is, and keeps the links on the way.
func (r *newRoot) follow(name string) (string, error) {
	at, rest, links := "/", strings.Split(strings.Trim(path.Clean(name), "/"), "/"), 0
	for len(rest) > 0 {
		next := path.Join(at, rest[0])
		if r.holds(next) {
			return path.Join(append([]string{next}, rest[1:]...)...), nil
		}
		rest = rest[1:]
		to := r.links[next]
		if to == "" && !slices.Contains(r.dirs, next) { // it was not met yet
			var err error
			to, err = os.Readlink(next)
			if errors.Is(err, unix.EINVAL) { // it is no link
				at = next
				continue
			}
			if err != nil {
				return "", err
			}
			r.mkdir(at)
			r.links[next] = to
		}
		if to == "" {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: %w", name, unix.ELOOP)
		}
		if path.IsAbs(to) {
			at = "/"
		} else {
			to = path.Join(at, to) // at has no links, so that .. is what it seems
			at = "/"
		}
		rest = append(strings.Split(strings.Trim(path.Clean(to), "/"), "/"), rest...)
	}
	return at, nil
}

// holds reports whether a path is there already, by itself or below a directory that is there wholly.
func (r *newRoot) holds(name string) bool {
	return slices.ContainsFunc(r.parts, func(p part) bool {
		return p.at == name || p.dir && strings.HasPrefix(name, p.at+"/")
	})
}

func (r *newRoot) mkdir(name string) {
	for ; name != "/" && !slices.Contains(r.dirs, name) && !r.holds(name); name = path.Dir(name) {
		r.dirs = append(r.dirs, name)
	}
}

// build puts the new root together and returns where it is.
func (r *newRoot) build() (base string, err error) {
	if base, err = mountTmpfs(); err != nil {
		return "", err
	}
	defer unix.Umask(unix.Umask(0o022)) // it may be another user who looks
	slices.Sort(r.dirs)                 // a directory comes before what is in it
	for _, d := range r.dirs {
		if err := os.Mkdir(path.Join(base, d), 0o755); err != nil {
			return base, err
		}
	}
	for at, to := range r.links {
		if err := os.Symlink(to, path.Join(base, at)); err != nil {
			return base, err
		}
	}
	for _, f := range r.files {
		fd, err := unix.Open(path.Join(base, f), unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o444)
		if err != nil {
			return base, &os.PathError{Op: "create", Path: f, Err: err}
		}
		_ = unix.Close(fd)
	}
	if err := r.attach(base, false); err != nil {
		return base, err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(unix.AT_FDCWD, base, unix.AT_RECURSIVE, &attr); err != nil {
		return base, fmt.Errorf("make it read-only: %w", err)
	}
	return base, r.attach(base, true)
}

// attach mounts the parts that are writable, or those that are not.
func (r *newRoot) attach(base string, writable bool) error {
	for _, p := range r.parts {
		if p.writable != writable {
			continue
		}
		if writable {
			attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC}
			if p.dir {
				attr.Attr_set |= unix.MOUNT_ATTR_NODEV
			}
			if err := unix.MountSetattr(p.fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
				return fmt.Errorf("mount %s: %w", p.at, err)
			}
		}
		if err := unix.MoveMount(p.fd, "", unix.AT_FDCWD, path.Join(base, p.at), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount %s: %w", p.at, err)
		}
	}
	return nil
}

// mountTmpfs mounts a file system on some directory; which one does not matter, as its mount is seen by nobody else and is
// the root soon.
func mountTmpfs() (base string, err error) {
	for _, base = range []string{"/tmp", "/run", "/mnt", "/sys", "/proc"} {
		err = unix.Mount("tmpfs", base, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=64k,nr_inodes=1k")
		if err == nil || !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("mount a file system in memory: %w", err)
	}
	return base, nil
}

// proc mounts the program's own /proc, in which there is nothing but itself. A container may not let that be; then it gets
// the present one.
func (c *confiner) proc(at string) error {
	const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err := unix.Mount("proc", at, "proc", flags, "subset=pid")
	if errors.Is(err, unix.EINVAL) { // before 5.8
		err = unix.Mount("proc", at, "proc", flags, "")
	}
	if err == nil {
		return nil
	}
	c.miss("root: its /proc is the host's: %v", err)
	fd, err := clone("/proc", true)
	if err != nil {
		return fmt.Errorf("take /proc along: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// cover moves the present directory over a root that nothing can take the place of, that of an initramfs. What is below stays
// where nobody gets without the privilege to call chroot again.
func cover() error {
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("put it over the present root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return os.NewSyscallError("chroot", err)
	}
	return unix.Chdir("/")
}

// pivot makes base the root, and leaves nothing of the one before.
func pivot(base string) error {
	old, err := unix.Open("/", unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(old) }()
	if err := unix.Chdir(base); err != nil {
		return err
	}
	err = unix.PivotRoot(".", ".")
	if errors.Is(err, unix.EINVAL) {
		return cover()
	}
	if err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	// Both are at / now, the old one above.
	if err := unix.Fchdir(old); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the former root: %w", err)
	}
	return unix.Chdir("/")
}
