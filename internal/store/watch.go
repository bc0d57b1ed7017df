package store

import (
	"cmp"
	"context"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/dirwatch"
)

// EventsOptions say which events are wanted.
type EventsOptions struct {
	IDs    []string  // of these VMs; none = of all
	Since  time.Time // not older ones
	Follow bool      // go on until ctx ends, or the VMs named are removed
}

// Watch passes events on: those that are kept, in the order of their time, and with Follow those that come.
func (s *Store) Watch(ctx context.Context, o EventsOptions, f func(api.Event) error) error {
	w := &eventWatch{s: s, o: o, last: map[string]api.Event{}}
	if !o.Follow {
		return w.pass(w.ids(), f)
	}
	top, err := s.vms(), s.prepare()
	if err != nil {
		return err
	}
	if w.dirs, err = dirwatch.Open(); err == nil {
		defer func() { _ = w.dirs.Close() }()
		err = w.dirs.Add(top)
	}
	if err != nil {
		return errdefs.Host.Errorf("watch the VMs: %w", err)
	}
	changed := []string{top}
	for {
		if slices.Contains(changed, top) {
			changed = append(changed, w.rescan(f)...)
		}
		var ids []string
		for _, dir := range changed {
			if dir != top {
				ids = append(ids, filepath.Base(dir))
			}
		}
		if err := w.pass(ids, f); err != nil || w.err != nil {
			return cmp.Or(err, w.err)
		}
		if len(o.IDs) > 0 && len(w.last) == 0 {
			return nil
		}
		if changed, err = w.dirs.Wait(ctx); err != nil {
			return err
		}
	}
}

// eventWatch knows what was passed on.
type eventWatch struct {
	s    *Store
	o    EventsOptions
	dirs *dirwatch.Watcher
	last map[string]api.Event // by VM; a zero one before the first
	err  error
}

// ids are the VMs that are wanted and there.
func (w *eventWatch) ids() []string {
	all, err := w.s.IDs()
	w.err = err
	return slices.DeleteFunc(all, func(id string) bool { return len(w.o.IDs) > 0 && !slices.Contains(w.o.IDs, id) })
}

// rescan watches VMs that are new, whose directories it returns, and tells of those that are gone.
func (w *eventWatch) rescan(f func(api.Event) error) (fresh []string) {
	there := w.ids()
	for _, id := range there {
		if _, known := w.last[id]; !known && w.dirs.Add(w.s.Dir(id)) == nil {
			w.last[id] = api.Event{}
			fresh = append(fresh, w.s.Dir(id))
		}
	}
	for id := range w.last {
		if !slices.Contains(there, id) {
			delete(w.last, id)
			if err := f(api.Event{Time: time.Now().UTC(), VM: id, Type: "removed"}); err != nil && w.err == nil {
				w.err = err
			}
		}
	}
	return fresh
}

// pass passes on what is new of these VMs.
func (w *eventWatch) pass(ids []string, f func(api.Event) error) error {
	var all []api.Event
	for _, id := range ids {
		events, err := w.s.Events(id)
		if err != nil {
			continue // it went meanwhile
		}
		if last := w.last[id]; !last.Time.IsZero() {
			for i, e := range slices.Backward(events) {
				if reflect.DeepEqual(e, last) {
					events = events[i+1:]
					break
				}
			}
		}
		if len(events) > 0 {
			w.last[id] = events[len(events)-1]
		}
		for _, e := range events {
			if e.VM = id; !e.Time.Before(w.o.Since) {
				all = append(all, e)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b api.Event) int { return a.Time.Compare(b.Time) })
	for _, e := range all {
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}
