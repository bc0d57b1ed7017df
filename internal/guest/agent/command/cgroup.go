package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// cgroups is the part of the control group tree that user commands live in: one group for all, with limits that leave
// room for the agent, and one below it per command.
type cgroups struct {
	root string
	each string // the most processes of one command, so that a fork bomb leaves room for another command that ends it
	mu   sync.Mutex
	next uint64
	old  []string // of commands that ended and left something behind
	// spare is one made ahead: making one takes longer than all else before a fork.
	spare chan *os.File
}

// Limits are what all commands together may use.
type Limits struct {
	Pids   int
	Memory uint64 // bytes
}

// newCgroups makes the group "user" below the mounted cgroup2 file system at mount.
func newCgroups(mount string, l Limits) (*cgroups, error) {
	c := &cgroups{root: filepath.Join(mount, "user"), each: strconv.Itoa(l.Pids - l.Pids/4), spare: make(chan *os.File, 1)}
	const control = "cgroup.subtree_control"
	if err := put(filepath.Join(mount, control), "+pids +memory"); err != nil {
		return nil, err
	}
	if err := os.Mkdir(c.root, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	// Commands share the processors evenly, however many processes each has. A kernel without that still runs them.
	for _, dir := range []string{mount, c.root} {
		_ = put(filepath.Join(dir, control), "+cpu")
	}
	if err := put(filepath.Join(c.root, control), "+pids"); err != nil {
		return nil, err
	}
	if err := put(filepath.Join(c.root, "pids.max"), strconv.Itoa(l.Pids)); err != nil {
		return nil, err
	}
	return c, put(filepath.Join(c.root, "memory.max"), strconv.FormatUint(l.Memory, 10))
}

func put(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// take gives a command its group, open.
func (c *cgroups) take() (*os.File, error) {
	select {
	case f := <-c.spare:
		return f, nil
	default:
		return c.make()
	}
}

// prepare makes the next group, unless there is one.
func (c *cgroups) prepare() {
	if len(c.spare) > 0 {
		return
	}
	f, err := c.make()
	if err != nil {
		return // take will say why
	}
	select {
	case c.spare <- f:
	default:
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
}

func (c *cgroups) make() (*os.File, error) {
	c.mu.Lock()
	c.next++
	dir := filepath.Join(c.root, "e"+strconv.FormatUint(c.next, 10))
	c.mu.Unlock()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("control group: %w", err)
	}
	err := put(filepath.Join(dir, "pids.max"), c.each)
	var f *os.File
	if err == nil {
		f, err = os.Open(dir)
	}
	if err != nil {
		_ = os.Remove(dir)
		return nil, fmt.Errorf("control group: %w", err)
	}
	return f, nil
}

// release removes the group, or later, when what the command left behind is gone.
func (c *cgroups) release(dir string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := c.old[:0]
	for _, d := range append(c.old, dir) {
		if err := os.Remove(d); errors.Is(err, syscall.EBUSY) {
			kept = append(kept, d)
		}
	}
	c.old = kept
}

// kill ends everything in the group.
func (c *cgroups) kill(dir string) error { return put(filepath.Join(dir, "cgroup.kill"), "1") }

// freeze stops or continues all user commands.
func (c *cgroups) freeze(on bool) error {
	v := "0"
	if on {
		v = "1"
	}
	if err := put(filepath.Join(c.root, "cgroup.freeze"), v); err != nil || !on {
		return err
	}
	// The kernel only begins with it. A process that waits in the kernel runs nothing of its own before it stands still.
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(c.root, "cgroup.events"))
		if err != nil || strings.Contains(string(b), "frozen 1") {
			return err
		}
	}
	return nil
}

// pids lists the processes in the group.
func pids(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var all []int
	for f := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			all = append(all, pid)
		}
	}
	return all, nil
}
