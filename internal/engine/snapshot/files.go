package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/filecopy"
	"github.com/smolvm/smolvm/internal/sys/launch"
	"github.com/smolvm/smolvm/internal/sys/plainfile"
)

const (
	maxRecord = 64 << 10
	// maxState bounds the devices' state, which has some tens of KiB.
	maxState = 16 << 20
)

func newSum() hash.Hash32 { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

// Empty refuses a directory that is not there or holds something: a snapshot is written once.
func Empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return errdefs.Invalid.Errorf("a directory for the snapshot: %w", err)
	}
	if len(entries) > 0 {
		return errdefs.AlreadyExists.Errorf("the snapshot's directory %s is not empty", dir)
	}
	return nil
}

// Write makes the snapshot r in dir. State and memory are copied, so that the monitor, which wrote them, has no hold on what
// others go on from, and what is zero takes no room. The record comes last: without it there is no snapshot. On error
// nothing is left in dir.
func Write(ctx context.Context, dir string, r Record, state, memory *os.File) (err error) {
	if err := Empty(dir); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			for _, name := range []string{recordName, memoryName, stateName} {
				_ = os.Remove(filepath.Join(dir, name))
			}
			err = failed("write the snapshot into "+dir, err)
		}
	}()
	if st, err := state.Stat(); err != nil {
		return err
	} else if st.Size() == 0 || st.Size() > maxState {
		return errdefs.Engine.Errorf("the monitor wrote %d bytes of devices' state", st.Size())
	}
	if r.State, err = write(ctx, filepath.Join(dir, stateName), state); err != nil {
		return err
	}
	if r.Memory, err = write(ctx, filepath.Join(dir, memoryName), memory); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(dir, recordName), append(b, '\n'), 0o600)
}

// failed words an error of the host's file system.
func failed(what string, err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG):
		return errdefs.Exhausted.Errorf("%s: %w", what, err).WithRemedy("smolvm prune")
	case errdefs.ClassOf(err) != errdefs.Internal: // a deadline, or the monitor's own failure
		return errdefs.ClassOf(err).Errorf("%s: %w", what, err)
	}
	return errdefs.Host.Errorf("%s: %w", what, err)
}

// mode lets the monitors read it that have user ids of their own; the directory keeps everybody else out.
func mode() os.FileMode {
	if launch.IsRoot() {
		return 0o444
	}
	return 0o400
}

func write(ctx context.Context, path string, from *os.File) (f File, err error) {
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600) //nolint:gosec // the caller's directory
	if err != nil {
		return f, err
	}
	defer func() {
		if cerr := to.Close(); err == nil {
			err = cerr
		}
	}()
	sum := newSum()
	if err := filecopy.Copy(ctx, to, from, sum); err != nil {
		return f, err
	}
	st, err := to.Stat()
	if err != nil {
		return f, err
	}
	if err := to.Chmod(mode()); err != nil {
		return f, err
	}
	return File{Bytes: st.Size(), Sum: sum.Sum32()}, to.Sync()
}

// Snapshot is one that was opened.
type Snapshot struct {
	Record
	State, Memory *os.File
}

// Open opens the snapshot in dir and checks it, but for the memory's content: that is mapped, and read where it is needed.
func Open(dir string) (_ *Snapshot, err error) {
	s := &Snapshot{}
	defer func() {
		if err != nil {
			s.Close()
			err = errdefs.Engine.Errorf("the snapshot in %s is damaged or incomplete, and has to be made again: %w", dir, err)
		}
	}()
	f, err := plain(filepath.Join(dir, recordName))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	_ = f.Close()
	if err != nil {
		return nil, err
	}
	if len(b) > maxRecord {
		return nil, fmt.Errorf("its record has more than %d bytes", maxRecord)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s.Record); err != nil {
		return nil, fmt.Errorf("its record: %w", err)
	}
	if s.Version != recordVersion {
		return nil, fmt.Errorf("its record has version %d, and this program reads %d", s.Version, recordVersion)
	}
	if s.State, err = s.open(dir, stateName, s.Record.State); err != nil {
		return nil, err
	}
	if s.Memory, err = s.open(dir, memoryName, s.Record.Memory); err != nil {
		return nil, err
	}
	if s.Record.State.Bytes > maxState {
		return nil, errors.New("the devices' state is too large")
	}
	return s, check(s.State, s.Record.State)
}

// Close closes the files.
func (s *Snapshot) Close() {
	for _, f := range []*os.File{s.State, s.Memory} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// Verify reads the whole memory and refuses a damaged one.
func (s *Snapshot) Verify() error {
	if err := check(s.Memory, s.Record.Memory); err != nil {
		return errdefs.Engine.Errorf("the snapshot is damaged: %w", err)
	}
	return nil
}

func (s *Snapshot) open(dir, name string, want File) (*os.File, error) {
	f, err := plain(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() != want.Bytes {
		err = fmt.Errorf("%s has %d bytes, not %d", name, st.Size(), want.Bytes)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// plain opens a regular file, and waits for nothing else. The directory may lie behind a link.
func plain(path string) (*os.File, error) {
	f, err := plainfile.Own(path, os.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", path, plainfile.ErrNotRegular)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func check(f *os.File, want File) error {
	sum := newSum()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, want.Bytes)); err != nil {
		return err
	}
	if got := sum.Sum32(); got != want.Sum {
		return fmt.Errorf("%s has the sum %08x, not %08x", filepath.Base(f.Name()), got, want.Sum)
	}
	return nil
}
