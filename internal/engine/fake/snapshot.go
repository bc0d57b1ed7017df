package fake

import (
	"context"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/snapshot"
)

// stateWord is the devices' state of every fake machine.
const stateWord = "a fake machine's state"

// maxWord bounds what is read back of a machine's memory.
const maxWord = 64 << 10

// Snapshot implements engine.Snapshotter.
func (m *Machine) Snapshot(ctx context.Context, dir string) error {
	m.mu.Lock()
	paused, ended, word := m.paused != nil, m.ended, m.word
	m.mu.Unlock()
	switch {
	case ended:
		return errdefs.WrongState.Errorf("the machine has ended (%s)", m.exit.Kind)
	case !paused:
		return errdefs.WrongState.Errorf("a machine that runs has no snapshot: it must be paused")
	}
	r, err := snapshot.Of(&m.spec, m.Handle())
	if err != nil {
		return err
	}
	state, err := memfile("state", stateWord)
	if err != nil {
		return err
	}
	defer func() { _ = state.Close() }()
	memory, err := memfile("memory", word)
	if err != nil {
		return err
	}
	defer func() { _ = memory.Close() }()
	if err := memory.Truncate(int64(m.spec.MemoryMiB) << 20); err != nil {
		return errdefs.Host.Errorf("the machine's memory: %w", err)
	}
	return snapshot.Write(ctx, dir, r, state, memory)
}

func memfile(name, content string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, errdefs.Host.Errorf("a file for the machine's %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name) //nolint:gosec // a descriptor is small
	if _, err := io.WriteString(f, content); err != nil {
		_ = f.Close()
		return nil, errdefs.Host.Errorf("the machine's %s: %w", name, err)
	}
	return f, nil
}

// Restore implements engine.Restorer.
func (e *Engine) Restore(ctx context.Context, spec engine.Spec, dir string) (engine.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := spec.ValidateRestore(); err != nil {
		return nil, err
	}
	s, err := snapshot.Open(dir)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.Fits(&spec, e.Name(), e.opts.Caps.Version); err != nil {
		return nil, err
	}
	word, err := io.ReadAll(io.LimitReader(s.Memory, maxWord))
	if err != nil {
		return nil, errdefs.Engine.Errorf("the machine's memory: %w", err)
	}
	m, err := newMachine(e, spec)
	if err != nil {
		return nil, err
	}
	for i, b := range word {
		if b == 0 {
			word = word[:i]
			break
		}
	}
	m.word, m.paused = string(word), make(chan struct{})
	e.mu.Lock()
	e.machines = append(e.machines, m)
	e.mu.Unlock()
	return m, nil
}
