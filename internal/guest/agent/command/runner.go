package command

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/smolvm/smolvm/internal/guest/agent/output"
)

// Runner starts commands and knows those that run.
type Runner struct {
	acc accounts

	kids *children
	oom  *os.File // our own oom_score_adj, nil when it is not ours to set
	cg   *cgroups // nil: commands are killed by their process group

	outputs *output.Keeper

	mu       sync.Mutex
	defaults Defaults
	live     map[string]*Command
	past     []*Command // those that ended, the oldest first, bounded by retire
	number   uint64     // of commands so far
	closed   bool
}

// New returns a runner without control groups, for a process that is not the system's first.
func New() *Runner {
	return &Runner{
		acc: systemAccounts(), kids: newChildren(), live: map[string]*Command{}, outputs: output.NewKeeper(keptEach, keptAll),
	}
}

// NewInit returns the runner of process 1, which takes away orphans. cgroup is where cgroup2 is mounted.
func NewInit(cgroup string, l Limits) (*Runner, error) {
	r := New()
	var err error
	if r.cg, err = newCgroups(cgroup, l); err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	const path = "/proc/self/oom_score_adj"
	if r.oom, err = os.OpenFile(path, os.O_WRONLY, 0); err != nil {
		return nil, err
	}
	if _, err := r.oom.WriteString("-1000"); err != nil {
		return nil, err
	}
	go r.kids.reap()
	return r, nil
}

// SetDefaults says what all later commands share.
func (r *Runner) SetDefaults(d Defaults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d.Env, d.base = maps.Clone(d.Env), r.defaults.base
	r.defaults = d
}

// SetEnv changes the defaults' environment, and returns the former one.
func (r *Runner) SetEnv(env map[string]string) (former map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	former, r.defaults.Env = r.defaults.Env, maps.Clone(env)
	return former
}

// RootEnv is what a command of root's sees that adds nothing.
func (r *Runner) RootEnv() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	u, err := r.acc.lookup("")
	if err != nil {
		u = user{name: "root", home: "/root", shell: "/bin/sh"}
	}
	return list(environment(u, r.defaults.base, r.defaults.Env, nil))
}

// SetBase gives all later commands an environment that the defaults' is laid over.
func (r *Runner) SetBase(env map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.defaults.base = maps.Clone(env)
}

// Freeze stops all user commands until Thaw.
func (r *Runner) Freeze() error {
	if r.cg == nil {
		return nil
	}
	return r.cg.freeze(true)
}

// Thaw lets them go on.
func (r *Runner) Thaw() error {
	if r.cg == nil {
		return nil
	}
	return r.cg.freeze(false)
}

// Tasks counts the processes of all commands, with their threads; not ok without control groups.
func (r *Runner) Tasks() (n uint32, ok bool) {
	if r.cg == nil {
		return 0, false
	}
	b, err := os.ReadFile(r.cg.root + "/pids.current")
	if err != nil {
		return 0, false
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	return uint32(v), err == nil
}

// reserve keeps the id for c.
func (r *Runner) reserve(c *Command) (Defaults, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return Defaults{}, cannot("the machine is shutting down")
	}
	if r.taken(c.id) {
		return Defaults{}, cannot("there is a command with the id %q", c.id)
	}
	r.number++
	c.info.Number = r.number
	r.live[c.id] = c
	return r.defaults, nil
}

// forget drops a command that was not started.
func (r *Runner) forget(c *Command) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.live, c.id)
	c.log.Drop()
}

// Shutdown ends all commands: a word of warning, grace, then the end. None is started any more.
func (r *Runner) Shutdown(grace time.Duration) {
	r.mu.Lock()
	r.closed = true
	var all []*Command
	for _, c := range r.live {
		all = append(all, c)
	}
	r.mu.Unlock()
	if r.cg != nil {
		r.shutdownTree(grace)
	} else {
		for _, c := range all {
			c.Kill()
		}
	}
	for _, c := range all {
		select {
		case <-c.Done():
		case <-time.After(5 * time.Second): // in the kernel, on a dead disk
		}
	}
}

func (r *Runner) shutdownTree(grace time.Duration) {
	for _, pid := range r.allPids() {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	for end := time.Now().Add(grace); len(r.allPids()) > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	_ = r.cg.kill(r.cg.root)
	for end := time.Now().Add(2 * time.Second); len(r.allPids()) > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// allPids lists what runs in the commands' groups.
func (r *Runner) allPids() []int {
	entries, _ := os.ReadDir(r.cg.root)
	var all []int
	for _, e := range entries {
		if e.IsDir() {
			p, _ := pids(r.cg.root + "/" + e.Name())
			all = append(all, p...)
		}
	}
	return all
}

// fork starts the process in its group. The agent is exempt from the kernel's out-of-memory killer and what it starts must
// not be: a process inherits the value at the fork, so ours is that of a child for as long.
func (r *Runner) fork(p *process, files []*os.File, group *os.File) (*os.Process, func(), error) {
	sys := &syscall.SysProcAttr{Setsid: true, Setctty: p.terminal} // that of descriptor 0
	if os.Geteuid() == 0 {
		sys.Credential = &syscall.Credential{Uid: p.user.uid, Gid: p.user.gid, Groups: p.user.groups}
	} else if int(p.user.uid) != os.Geteuid() {
		return nil, nil, cannot("user %s: this agent does not run as root", p.user.name)
	}
	if group != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, int(group.Fd())
	}
	r.kids.mu.Lock()
	defer r.kids.mu.Unlock()
	if r.oom != nil {
		if _, err := r.oom.WriteAt([]byte("0"), 0); err != nil {
			return nil, nil, cannot("oom_score_adj: %w", err)
		}
		defer func() { _, _ = r.oom.WriteAt([]byte("-1000"), 0) }()
	}
	proc, err := os.StartProcess(p.path, p.argv, &os.ProcAttr{Dir: p.dir, Env: p.env, Files: files, Sys: sys})
	if err != nil {
		return nil, nil, startError(p, err)
	}
	return proc, r.kids.enter(proc.Pid), nil
}

// Start starts a command whose output goes to sink. A *StartError says what is wrong with the command.
func (r *Runner) Start(s Spec, sink Sink) (_ *Command, err error) {
	c := &Command{
		r: r, id: s.ID, sink: sink, done: make(chan struct{}), exited: make(chan struct{}), started: time.Now(), log: r.outputs.Open(),
	}
	c.info = Info{
		ID: s.ID, Line: s.line(), Terminal: s.Terminal != nil, Stdin: s.Stdin || s.Terminal != nil, Detached: s.Detach, Main: s.Main,
		Started: c.started,
	}
	d, err := r.reserve(c)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.forget(c)
		}
	}()
	p, err := prepare(s, d, r.acc)
	if err != nil {
		return nil, err
	}
	c.info.User = p.user.name
	if err := c.start(p, s); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.up = true
	return c, nil
}

var errNotRunning = errors.New("the command has ended")
