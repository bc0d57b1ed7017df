package command

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/smolvm/smolvm/internal/guest/agent/output"
)

// What is kept for those who come later.
const (
	keptEach     = 1 << 20 // output of one command, unless KeepOutput was told another size
	keptAll      = 8 << 20 // output of all
	pastDetached = 64      // ended commands that nobody waited for
	pastWatched  = 16      // and others
	pastTime     = time.Hour
)

// KeepOutput says how much output of one command is kept; 0 is the default. No command has been started.
func (r *Runner) KeepOutput(each uint32) {
	if each > 0 {
		r.outputs = output.NewKeeper(int(each), int(keptAll+OutputRoom(each)))
	}
}

// OutputRoom is how much memory more than by default it takes to keep so much output of one command: two such commands and
// some small ones have room.
func OutputRoom(each uint32) uint64 { return max(2*uint64(each), keptAll) - keptAll }

// Info tells of a command.
type Info struct {
	ID       string
	Number   uint64 // counts commands
	Line     string // its arguments, cut
	User     string
	Terminal bool
	Stdin    bool
	Detached bool
	Main     bool
	Started  time.Time
	Ended    time.Time // zero while it runs
}

// Info tells of the command.
func (c *Command) Info() Info {
	i := c.info
	i.Detached = i.Detached || c.keep.Load()
	select {
	case <-c.done:
		i.Ended = c.endedAt
	default:
	}
	return i
}

// Output is what is kept of what it printed.
func (c *Command) Output() *output.Log { return c.log }

// Keep lets the command outlive the call that started it.
func (c *Command) Keep() { c.keep.Store(true) }

// Kept reports whether it does.
func (c *Command) Kept() bool { return c.keep.Load() }

// retire moves a command to those that have ended. Nobody may count on them for ever: they are the newest few. What
// somebody may come back for is not driven out by what was watched to its end.
func (r *Runner) retire(c *Command) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.live, c.id)
	r.past = append(r.past, c)
	r.prune(time.Now())
}

// prune forgets what is too old or too much. r.mu is held.
func (r *Runner) prune(now time.Time) {
	left := map[bool]int{true: pastDetached, false: pastWatched}
	for i, c := range slices.Backward(r.past) {
		kind := c.info.Detached || c.info.Main || c.keep.Load()
		if left[kind]--; left[kind] < 0 || now.Sub(c.endedAt) > pastTime {
			c.log.Drop()
			r.past = slices.Delete(r.past, i, i+1)
		}
	}
}

// taken reports whether a command has the id. r.mu is held.
func (r *Runner) taken(id string) bool {
	return r.live[id] != nil || slices.ContainsFunc(r.past, func(c *Command) bool { return c.id == id })
}

// List returns the commands that run or are remembered, in the order of their start.
func (r *Runner) List() []*Command {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.prune(time.Now())
	all := slices.Clone(r.past)
	for _, c := range r.live {
		if c.up {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *Command) int { return cmp.Compare(a.info.Number, b.info.Number) })
	return all
}

// Reasons for which no command is found.
var (
	ErrNone      = errors.New("no such command")
	ErrAmbiguous = errors.New("more than one command")
)

// Find returns the command with that id, or whose id alone begins so. Without one it is the newest main command, else the
// only one that runs.
func (r *Runner) Find(id string) (*Command, error) {
	var found []*Command
	for _, c := range r.List() {
		switch {
		case id == c.id && id != "":
			return c, nil
		case id == "" && c.info.Main:
			found = []*Command{c}
		case id == "" && c.Info().Ended.IsZero() && (len(found) == 0 || !found[0].info.Main),
			id != "" && strings.HasPrefix(c.id, id):
			found = append(found, c)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1 && id != "":
		return nil, fmt.Errorf("%w has an id that begins with %q", ErrAmbiguous, id)
	case len(found) > 1:
		return nil, fmt.Errorf("%w runs and none is the main one", ErrAmbiguous)
	case id == "":
		return nil, fmt.Errorf("%w: none runs", ErrNone)
	}
	return nil, fmt.Errorf("%w: %q", ErrNone, id)
}
