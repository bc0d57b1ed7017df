package firecracker

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/firecracker/fcapi"
	"github.com/smolvm/smolvm/internal/engine/snapshot"
)

// scratch are the two files into which a monitor writes its snapshots. It has them from its start, since once confined it can
// neither make a file nor be given one, and they have no names.
type scratch struct {
	state, memory     *os.File
	stateFD, memoryFD int // as the monitor has them
}

func (s scratch) close() {
	for _, f := range []*os.File{s.state, s.memory} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// empty gives back what they take.
func (s scratch) empty() error {
	for _, f := range []*os.File{s.state, s.memory} {
		if err := f.Truncate(0); err != nil {
			return err
		}
	}
	return nil
}

// snapshots gives the monitor the files of the snapshots that it may write, and of the one that it goes on from.
func (s *starting) snapshots() (err error) {
	for _, f := range []struct {
		name string
		file **os.File
		to   *int
	}{{"state", &s.scratch.state, &s.scratch.stateFD}, {"memory", &s.scratch.memory, &s.scratch.memoryFD}} {
		if *f.file, err = s.dir.Scratch(f.name); err != nil {
			return fmt.Errorf("a file for its snapshots' %s: %w", f.name, err)
		}
		if err := s.own(*f.file, false); err != nil {
			return fmt.Errorf("a file for its snapshots' %s: %w", f.name, err)
		}
		*f.to = s.give(*f.file)
	}
	s.ours.Add(s.scratch.close)
	if s.from == nil {
		return nil
	}
	for _, f := range []*os.File{s.from.State, s.from.Memory} {
		if err := s.own(f, true); err != nil {
			return err
		}
	}
	s.state, s.memory = s.give(s.from.State), s.give(s.from.Memory)
	return nil
}

// maxFileBytes is the limit of a file that the monitor writes: its disk, or its memory.
func (s *starting) maxFileBytes() int64 {
	if s.spec.MaxFileBytes == 0 {
		return 0
	}
	return max(s.spec.MaxFileBytes, int64(s.spec.MemoryMiB)<<20)
}

// load has the monitor make the snapshot's machine, which does not run yet. Before it nothing but the log and the metrics may
// be set. The card, the drives and the socket have the names that they had.
func (s *starting) load(ctx context.Context, api *fcapi.Client) error {
	return api.Load(ctx, fcapi.SnapshotLoad{State: fdPath(s.state), Memory: fcapi.MemoryBackend{Type: "File", Path: fdPath(s.memory)}})
}

// Snapshot implements engine.Snapshotter.
func (m *machine) Snapshot(ctx context.Context, dir string) error {
	m.pausing.Lock()
	defer m.pausing.Unlock()
	if err := m.over(); err != nil {
		return err
	}
	if !m.paused {
		return errdefs.WrongState.Errorf("a machine that runs has no snapshot: it must be paused")
	}
	if err := snapshot.Empty(dir); err != nil {
		return err
	}
	if err := m.scratch.empty(); err != nil { // a call that was given up may have gone on
		return errdefs.Host.Errorf("the snapshot's files: %w", err)
	}
	defer func() { _ = m.scratch.empty() }()
	err := m.api.Snapshot(ctx, fcapi.SnapshotCreate{Type: "Full", State: fdPath(m.scratch.stateFD), Memory: fdPath(m.scratch.memoryFD)})
	if err != nil {
		return snapshotFailed(err)
	}
	return snapshot.Write(ctx, dir, m.record, m.scratch.state, m.scratch.memory)
}

// snapshotFailed gives what Firecracker says of a snapshot its class. A full disk has a code of its own in it, the kernel's.
func snapshotFailed(err error) error {
	switch class := errdefs.ClassOf(err); {
	case strings.Contains(err.Error(), "(os error 28)") || strings.Contains(err.Error(), "(os error 122)"):
		return errdefs.Exhausted.Errorf("write the snapshot: %w", err).WithRemedy("smolvm prune")
	case class == errdefs.Invalid: // what was asked for was looked at before
		return errdefs.Engine.Errorf("write the snapshot: %w", err)
	default:
		return class.Errorf("write the snapshot: %w", err)
	}
}

var (
	_ engine.Restorer    = (*Engine)(nil)
	_ engine.Snapshotter = (*machine)(nil)
)
