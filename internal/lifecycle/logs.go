package lifecycle

import (
	"context"
	"io"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/store"
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
	f := store.NewFollower(m.store.Path(id, name), w)
	defer f.Close()
	if !follow || err != nil || !rec.State.State.Live() || rec.State.Supervisor == nil {
		return f.Copy()
	}
	return store.FollowDir(ctx, m.store.Dir(id), *rec.State.Supervisor, f.Copy)
}
