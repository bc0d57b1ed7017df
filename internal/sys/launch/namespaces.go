package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// kinds are the namespaces that a program can have of its own, by their names in /proc/PID/ns.
func kinds() []string { return []string{"user", "mnt", "pid", "net", "ipc", "uts"} }

// ours are our own namespaces.
func ours() (map[string]string, error) {
	all := map[string]string{}
	for _, kind := range kinds() {
		id, err := os.Readlink("/proc/self/ns/" + kind)
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without them
		}
		if err != nil {
			return nil, fmt.Errorf("our %s namespace: %w", kind, err)
		}
		all[kind] = id
	}
	return all, nil
}

// attributes asks for namespaces; who is not root needs a user namespace for them, in which he stays who he is. What the
// launcher does in there takes capabilities, which it gives up before it becomes the program.
func attributes(p Plan) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if p.Group != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(p.Group.Fd())
	}
	if p.Refused != "" {
		return attr
	}
	attr.Cloneflags = syscall.CLONE_NEWNET
	if p.rooted() {
		attr.Cloneflags |= syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	}
	if IsRoot() {
		return attr
	}
	attr.Cloneflags |= syscall.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Geteuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getegid(), Size: 1}}
	if p.rooted() {
		attr.AmbientCaps = append(attr.AmbientCaps, unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_SYS_RESOURCE, unix.CAP_SETPCAP)
	}
	if p.TAP != nil {
		attr.AmbientCaps = append(attr.AmbientCaps, tapCapabilities()...)
	}
	return attr
}

// rooted reports whether the program is to have a root of its own, and the namespaces that this takes.
func (p Plan) rooted() bool { return p.Root && p.RootRefused == "" && p.Refused == "" }

// Lesser is the plan to go on with after the launch failed with err because something may not be had here: first without its
// control group, then without a root of its own, then without any namespace. ok is false where err is another failure, or nothing is left to do without.
func (p Plan) Lesser(err error) (_ Plan, ok bool) {
	switch {
	case !Refused(err) || p.Refused != "":
		return p, false
	case p.Group != nil:
		p.Group = nil
	case p.rooted():
		p.RootRefused = withRemedy(err.Error())
	default:
		p.Refused = withRemedy(err.Error())
	}
	return p, true
}

// Refused reports whether the command's start failed as it does where namespaces may not be had.
func Refused(err error) bool {
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func withRemedy(why string) string {
	if remedy := NamespacesRemedy(); remedy != "" {
		return why + " (" + remedy + ")"
	}
	return why
}

// NamespacesRemedy is what lets namespaces be made where they may not; "" where nothing is seen that is in the way.
func NamespacesRemedy() string { return namespacesRemedy("/") }

func namespacesRemedy(root string) string {
	if settings := forbiddenBy(root); settings != "" {
		return settings
	}
	for _, mark := range []string{".dockerenv", "run/.containerenv"} {
		if _, err := os.Stat(filepath.Join(root, mark)); err == nil {
			return "in a container: start it with --privileged, or --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
		}
	}
	return ""
}

// ForbiddenBy is the command that changes the settings of this host by which nobody but root may make namespaces; "" where he may,
// as far as settings tell.
func ForbiddenBy() string { return forbiddenBy("/") }

func forbiddenBy(root string) string {
	read := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(root, "proc", name)) //nolint:gosec // fixed names
		return strings.TrimSpace(string(b))
	}
	var settings []string
	for _, s := range []struct{ name, closed, open string }{
		{"kernel.unprivileged_userns_clone", "0", "1"},             // Debian's
		{"kernel.apparmor_restrict_unprivileged_userns", "1", "0"}, // Ubuntu's, since 23.10
		{"user.max_user_namespaces", "0", "10000"},
		{"user.max_mnt_namespaces", "0", "10000"},
		{"user.max_pid_namespaces", "0", "10000"},
		{"user.max_net_namespaces", "0", "10000"},
	} {
		// A program with a profile of its own may be let through by it.
		if strings.Contains(s.name, "apparmor") && read("self/attr/current") != "unconfined" {
			continue
		}
		if read("sys/"+strings.ReplaceAll(s.name, ".", "/")) == s.closed {
			settings = append(settings, s.name+"="+s.open)
		}
	}
	if len(settings) == 0 {
		return ""
	}
	return "sudo sysctl -w " + strings.Join(settings, " ")
}

// namespaces tells in which ones of its own the program is, and lets it make no more.
func (c *confiner) namespaces() {
	if c.plan.Refused != "" {
		c.miss("netns: %s", c.plan.Refused)
		if c.plan.Root {
			c.miss("root: without namespaces there is none of its own")
		}
		return
	}
	now, err := ours()
	if err != nil {
		c.miss("namespaces: %v", err)
		return
	}
	for _, kind := range kinds() {
		switch {
		case now[kind] != c.plan.ParentNS[kind]:
			c.have("%sns", kind)
		case kind == "net":
			c.miss("netns: it is in our parent's")
		}
	}
	if now["user"] == c.plan.ParentNS["user"] {
		return
	}
	// A user namespace is a way to parts of the kernel that only root reaches otherwise.
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err == nil {
		c.have("no user namespaces below")
	}
}
