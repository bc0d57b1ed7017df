package lifecycle

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/store"
	"github.com/smolvm/smolvm/internal/sys/pidfd"
)

// LogKind picks one of a VM's logs.
type LogKind string

// The logs of a VM.
const (
	LogOutput  LogKind = "output"  // of the command of `run -d`
	LogConsole LogKind = "console" // of the guest's kernel
)

// Logs copies a log to w; with follow it goes on until the VM ends or ctx does. A log that was never written is empty.
func (m *Manager) Logs(ctx context.Context, id string, kind LogKind, follow bool, w io.Writer) error {
	var name string
	switch kind {
	case LogOutput:
		name = store.OutputFile
	case LogConsole:
		name = store.ConsoleFile
	default:
		return errdefs.Invalid.Errorf("log: %q is neither %s nor %s", kind, LogOutput, LogConsole)
	}
	m.sweep()
	rec, err := m.settle(ctx, id)
	if errdefs.Is(err, errdefs.NotFound) || errdefs.Is(err, errdefs.Invalid) {
		return err
	}
	f := &follower{path: m.store.Path(id, name), w: w}
	defer f.close()
	if !follow || err != nil || !rec.State.State.Live() || rec.State.Supervisor == nil {
		return f.copy()
	}
	return followDir(ctx, m.store.Dir(id), *rec.State.Supervisor, f.copy)
}

// follower copies a file as it grows.
type follower struct {
	path string
	w    io.Writer
	f    *os.File
	at   int64
}

func (f *follower) close() {
	if f.f != nil {
		_ = f.f.Close()
	}
}

// copy copies what is new. A file that has become shorter was begun anew or cut in its middle: what is there now comes
// whole.
func (f *follower) copy() error {
	if f.f == nil {
		file, err := os.Open(f.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return errdefs.Host.Errorf("read the log: %w", err)
		}
		f.f = file
	}
	st, err := f.f.Stat()
	if err != nil {
		return errdefs.Host.Errorf("read the log: %w", err)
	}
	if st.Size() < f.at {
		f.at = 0
	}
	n, err := io.Copy(f.w, io.NewSectionReader(f.f, f.at, st.Size()-f.at))
	f.at += n
	return err
}

// followDir calls copy whenever something in dir was written, and goes on until the supervisor has ended or ctx does; what
// wakes it up are the kernel's notices of writes.
func followDir(ctx context.Context, dir string, supervisor store.Process, copy func() error) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return errdefs.Host.Errorf("watch the log: %w", err)
	}
	notices := os.NewFile(uintptr(fd), "inotify")
	defer func() { _ = notices.Close() }()
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF); err != nil {
		return errdefs.Host.Errorf("watch the log: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if p, err := pidfd.Open(supervisor.PID, supervisor.StartTicks); err == nil {
			defer func() { _ = p.Close() }()
			_ = p.Wait(ctx)
		}
		_ = notices.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	}()
	buf := make([]byte, 64<<10)
	for {
		if err := copy(); err != nil {
			return err
		}
		select {
		case <-ended:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return copy()
		default:
		}
		n, err := notices.Read(buf)
		if err != nil {
			<-ended
			continue
		}
		if left(buf[:n]) {
			return nil // the VM was deleted, and its log with it
		}
	}
}

// left reports whether the directory that is watched went away.
func left(notices []byte) bool {
	for len(notices) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(notices[4:])
		if mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED) != 0 {
			return true
		}
		notices = notices[min(len(notices), unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(notices[12:]))):]
	}
	return false
}
