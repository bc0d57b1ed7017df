// Package cgroup bounds how much processor time a process takes, by a control group of its own: version 2, or version 1,
// wherever this process may make one.
//
// Layer: leaf. It imports none of ours.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// period is the time in microseconds over which a share is counted.
const period = 100_000

// Parent is a place where groups can be made.
type Parent struct {
	dir string // of the parent group
	v2  bool
}

// Find returns where this process may make groups that bound processor time. An error says why it may not.
func Find() (Parent, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Parent{}, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Parent{}, err
	}
	var why []error
	for _, p := range candidates(string(mounts), string(own)) {
		err := p.try()
		if err == nil {
			return p, nil
		}
		why = append(why, err)
	}
	if len(why) == 0 {
		return Parent{}, errors.New("no cpu controller is mounted")
	}
	return Parent{}, errors.Join(why...)
}

// candidates lists where a group could be made: below our own group or one above it, nearest first, version 2 before 1.
func candidates(mountinfo, own string) []Parent {
	var v1, v2 []Parent
	for line := range strings.Lines(mountinfo) {
		m, ok := parseMount(line)
		if !ok {
			continue
		}
		for dir := m.ours(own); dir != ""; dir = above(dir) {
			p := Parent{dir: filepath.Join(m.at, dir), v2: m.v2}
			if m.v2 {
				v2 = append(v2, p)
			} else {
				v1 = append(v1, p)
			}
		}
	}
	return append(v2, v1...)
}

// above is the group above; "" above the root.
func above(dir string) string {
	if dir == "/" {
		return ""
	}
	return path.Dir(dir)
}

// mount is a mounted hierarchy that can have the cpu controller.
type mount struct {
	root, at string
	v2       bool
}

// parseMount reads a line of mountinfo: "id parent dev root at options… - type source superoptions".
func parseMount(line string) (mount, bool) {
	left, right, ok := strings.Cut(strings.TrimSpace(line), " - ")
	a, b := strings.Fields(left), strings.Fields(right)
	if !ok || len(a) < 6 || len(b) < 3 {
		return mount{}, false
	}
	m := mount{root: a[3], at: a[4], v2: b[0] == "cgroup2"}
	if m.v2 {
		return m, true
	}
	if b[0] == "cgroup" {
		return m, hasElement(b[2], "cpu")
	}
	return mount{}, false
}

// ours is our group in the hierarchy, relative to what is mounted; "" where it is not in there.
func (m mount) ours(own string) string {
	for line := range strings.Lines(own) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || m.v2 != (f[0] == "0" && f[1] == "") {
			continue
		}
		if !m.v2 && !hasElement(f[1], "cpu") {
			continue
		}
		if m.root == "/" {
			return path.Clean("/" + f[2])
		}
		if rest, ok := strings.CutPrefix(f[2], m.root); ok {
			return path.Clean("/" + rest)
		}
		return "/" // what is mounted is what we may see of it
	}
	return ""
}

func hasElement(list, want string) bool {
	return slices.Contains(strings.Split(list, ","), want)
}

// try makes a group and removes it, to see whether that works.
func (p Parent) try() error {
	g, err := p.Make(fmt.Sprintf("smolvm-try-%d-%d", os.Getpid(), time.Now().UnixNano()), 100)
	if err != nil {
		return err
	}
	return g.Remove()
}

// Group is a group that was made.
type Group struct{ dir string }

// Make makes a group whose processes together take at most percent of one processor. On an error nothing is left.
func (p Parent) Make(name string, percent int) (*Group, error) {
	if p.v2 {
		if err := p.enable(); err != nil {
			return nil, err
		}
	}
	g := &Group{dir: filepath.Join(p.dir, name)}
	if err := os.Mkdir(g.dir, 0o755); err != nil { //nolint:gosec // as control groups are: readable
		return nil, err
	}
	if err := g.limit(p.v2, percent); err != nil {
		_ = g.Remove()
		return nil, err
	}
	return g, nil
}

// String tells where it is, and of which version.
func (p Parent) String() string {
	if p.v2 {
		return p.dir + " (version 2)"
	}
	return p.dir + " (version 1)"
}

// Path names the group, for records.
func (p Parent) Path(name string) string { return filepath.Join(p.dir, name) }

// enable has the groups below bound processor time.
func (p Parent) enable() error {
	file := filepath.Join(p.dir, "cgroup.subtree_control")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(b)), "cpu") {
		return nil
	}
	return write(file, "+cpu")
}

func (g *Group) limit(v2 bool, percent int) error {
	quota := strconv.Itoa(percent * period / 100)
	if v2 {
		return write(filepath.Join(g.dir, "cpu.max"), quota+" "+strconv.Itoa(period))
	}
	if err := write(filepath.Join(g.dir, "cpu.cfs_period_us"), strconv.Itoa(period)); err != nil {
		return err
	}
	return write(filepath.Join(g.dir, "cpu.cfs_quota_us"), quota)
}

// Add moves a process into the group, with all its threads.
func (g *Group) Add(pid int) error {
	return write(filepath.Join(g.dir, "cgroup.procs"), strconv.Itoa(pid))
}

// Remove removes the group. Its processes must have ended; one that is gone already is no error.
func (g *Group) Remove() error { return Remove(g.dir) }

// Remove removes the group of that path, as Path gave it. The kernel takes a moment to notice that the last process has
// ended.
func Remove(dir string) error {
	for wait := time.Millisecond; ; wait *= 2 {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if wait > time.Second {
			return err
		}
		time.Sleep(wait)
	}
}

// write writes to a file of the kernel's: it exists, and one write is one order.
func write(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0) //nolint:gosec // a control group's file
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
