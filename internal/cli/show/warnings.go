package show

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

// Warnings returns what users see of the log on w: warnings, each a line.
func Warnings(w io.Writer) slog.Handler { return &warnings{w: w} }

type warnings struct {
	mu    sync.Mutex
	w     io.Writer
	attrs string
}

// Enabled implements slog.Handler.
func (h *warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements slog.Handler.
func (h *warnings) Handle(_ context.Context, r slog.Record) error {
	line := r.Message + h.attrs
	r.Attrs(func(a slog.Attr) bool {
		line += attr(a)
		return true
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := fmt.Fprintf(h.w, "smolvm: warning: %s\n", Cell(line))
	return err
}

// WithAttrs implements slog.Handler.
func (h *warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := &warnings{w: h.w, attrs: h.attrs}
	for _, a := range attrs {
		next.attrs += attr(a)
	}
	return next
}

// WithGroup implements slog.Handler.
func (h *warnings) WithGroup(string) slog.Handler { return h }

func attr(a slog.Attr) string { return fmt.Sprintf(", %s %v", a.Key, a.Value) }
