// Package cgroup bounds what a process takes of the host, by a control group of its own, wherever this process may make one. Version 2
// bounds all of it, version 1 the processor time alone.
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

	"golang.org/x/sys/unix"
)

// period is the time in microseconds over which a share is counted.
const period = 100_000

// inner is the group in a group of version 2 in which the processes are. With controllers enabled for it, the group above keeps them:
// systemd takes them from what it did not make, and limits would go with them.
const inner = "vm"

// Limits are of all processes in a group together. What is 0 has no limit.
type Limits struct {
	CPUPercent int   // of one processor
	Memory     int64 // in bytes, with the pages of files that they use; swap is not in it
	Processes  int   // and threads
}

// controllers that it takes in version 2.
func (l Limits) controllers() (names []string) {
	if l.CPUPercent != 0 {
		names = append(names, "cpu")
	}
	if l.Memory != 0 {
		names = append(names, "memory")
	}
	if l.Processes != 0 {
		names = append(names, "pids")
	}
	return names
}

// Parent is a place where groups can be made.
type Parent struct {
	dir string // of the parent group
	v2  bool
}

// Find returns where this process may make groups with these limits. An error says why it may not.
func Find(l Limits) (Parent, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Parent{}, err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Parent{}, err
	}
	return first(candidates(string(mounts), string(own)), func(p Parent) error { return p.try(l) })
}

// first returns the first place that works. It never leaves a group that somebody gave a limit of memory or processor time: what is made
// above that would not be held to it.
func first(places []Parent, try func(Parent) error) (Parent, error) {
	var why []error
	held := map[bool]bool{} // by version
	for _, p := range places {
		if held[p.v2] {
			continue
		}
		err := try(p)
		if err == nil {
			return p, nil
		}
		why = append(why, err)
		if held[p.v2] = p.limited(); held[p.v2] {
			why = append(why, fmt.Errorf("%s has limits of its own, which hold for its processes", p.dir))
		}
	}
	if len(why) == 0 {
		return Parent{}, errors.New("no such controller is mounted")
	}
	return Parent{}, errors.Join(why...)
}

// limited reports whether the group has a limit.
func (p Parent) limited() bool {
	for file, none := range map[string]string{"memory.max": "max", "cpu.max": "max", "cpu.cfs_quota_us": "-1"} {
		b, err := os.ReadFile(filepath.Join(p.dir, file))
		if f := strings.Fields(string(b)); err == nil && len(f) > 0 && f[0] != none {
			return true
		}
	}
	return false
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

// try sees whether a group can be made, by making one where that is not plain.
func (p Parent) try(l Limits) error {
	if p.v2 && unix.Access(p.dir, unix.W_OK) == nil && enabled(p.dir, l.controllers()) {
		return nil
	}
	g, err := p.Make(fmt.Sprintf("smolvm-try-%d-%d", os.Getpid(), time.Now().UnixNano()), l)
	if err != nil {
		return err
	}
	return g.Remove()
}

// Group is a group that was made.
type Group struct {
	dir   string
	procs string   // the group in which its processes are
	file  *os.File // of that, in version 2
}

// Make makes a group with these limits. On an error nothing is left.
func (p Parent) Make(name string, l Limits) (_ *Group, err error) {
	g := &Group{dir: filepath.Join(p.dir, name)}
	g.procs = g.dir
	if !p.v2 && (l.Memory != 0 || l.Processes != 0) {
		return nil, fmt.Errorf("%s: version 1 bounds processor time only", p.dir)
	}
	if p.v2 {
		if err := enable(p.dir, l.controllers()); err != nil {
			return nil, err
		}
		g.procs = filepath.Join(g.dir, inner)
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil { //nolint:gosec // as control groups are: readable
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = g.Remove()
		}
	}()
	if !p.v2 {
		return g, writeAll(g.dir, [][2]string{{"cpu.cfs_period_us", strconv.Itoa(period)}, {"cpu.cfs_quota_us", quota(l.CPUPercent)}})
	}
	var files [][2]string
	if l.CPUPercent != 0 {
		files = append(files, [2]string{"cpu.max", quota(l.CPUPercent) + " " + strconv.Itoa(period)})
	}
	if l.Memory != 0 {
		files = append(files, [2]string{"memory.max", strconv.FormatInt(l.Memory, 10)})
	}
	if l.Processes != 0 {
		files = append(files, [2]string{"pids.max", strconv.Itoa(l.Processes)})
	}
	if err := writeAll(g.dir, files); err != nil {
		return nil, err
	}
	if err := enable(g.dir, l.controllers()); err != nil {
		return nil, err
	}
	if err := os.Mkdir(g.procs, 0o755); err != nil { //nolint:gosec // the same
		return nil, err
	}
	g.file, err = os.Open(g.procs)
	return g, err
}

func quota(percent int) string { return strconv.Itoa(percent * period / 100) }

// String tells where it is, and of which version.
func (p Parent) String() string {
	if p.v2 {
		return p.dir + " (version 2)"
	}
	return p.dir + " (version 1)"
}

// Path names the group, for records.
func (p Parent) Path(name string) string { return filepath.Join(p.dir, name) }

// enabled reports whether the groups below dir have these controllers.
func enabled(dir string, controllers []string) bool {
	b, err := os.ReadFile(filepath.Join(dir, subtree)) //nolint:gosec // a control group's file
	have := strings.Fields(string(b))
	return err == nil && !slices.ContainsFunc(controllers, func(c string) bool { return !slices.Contains(have, c) })
}

// enable has the groups below dir have these controllers.
func enable(dir string, controllers []string) error {
	if enabled(dir, controllers) {
		return nil
	}
	return write(filepath.Join(dir, subtree), "+"+strings.Join(controllers, " +"))
}

const subtree = "cgroup.subtree_control"

// File is the group for a process that shall begin in it (CLONE_INTO_CGROUP), which costs less than Add; nil in version 1.
func (g *Group) File() *os.File { return g.file }

// Add moves a process into the group, with all its threads, where it is not there yet.
func (g *Group) Add(pid int) error {
	file, number := filepath.Join(g.procs, "cgroup.procs"), strconv.Itoa(pid)
	b, err := os.ReadFile(file) //nolint:gosec // a control group's file
	if err == nil && slices.Contains(strings.Fields(string(b)), number) {
		return nil
	}
	return write(file, number)
}

// OutOfMemory reports whether the kernel killed one of its processes for want of memory. There may be no group.
func (g *Group) OutOfMemory() bool {
	if g == nil {
		return false
	}
	b, _ := os.ReadFile(filepath.Join(g.dir, "memory.events"))
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return n != "0"
		}
	}
	return false
}

// Remove removes the group. Its processes must have ended; one that is gone already is no error.
func (g *Group) Remove() error {
	_ = g.file.Close() // which may be nil
	return Remove(g.dir)
}

// Remove removes the group of that path, as Path gave it.
func Remove(dir string) error {
	if err := remove(filepath.Join(dir, inner)); err != nil {
		return err
	}
	return remove(dir)
}

// remove waits: the kernel takes a moment to notice that the last process has ended.
func remove(dir string) error {
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

func writeAll(dir string, files [][2]string) error {
	for _, f := range files {
		if err := write(filepath.Join(dir, f[0]), f[1]); err != nil {
			return err
		}
	}
	return nil
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
