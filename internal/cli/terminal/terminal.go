// Package terminal is the user's own terminal: raw while a guest's command has it, and back as it was afterwards.
//
// Layer: part of the front cli. It may import api, errdefs.
package terminal

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// Is reports whether f is a terminal.
func Is(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// Size is the size of the first of the files that is a terminal; else that of an old one.
func Size(files ...*os.File) api.TerminalSize {
	for _, f := range files {
		if cols, rows, err := term.GetSize(int(f.Fd())); err == nil && rows > 0 && cols > 0 {
			return api.TerminalSize{Rows: uint16(rows), Cols: uint16(cols)}
		}
	}
	return api.TerminalSize{Rows: 24, Cols: 80}
}

// Terminal is one that a guest's command has.
type Terminal struct {
	files  []*os.File
	in     *os.File // raw, or nil
	before *term.State
	sizes  chan api.TerminalSize
	notes  chan os.Signal
	done   chan struct{}
	ended  sync.WaitGroup

	mu   sync.Mutex
	over bool
}

// Open watches the size of the terminal behind the files; raw makes the first of them pass every key on. Close ends both.
func Open(raw bool, files ...*os.File) (*Terminal, error) {
	t := &Terminal{files: files, sizes: make(chan api.TerminalSize, 4), notes: make(chan os.Signal, 4), done: make(chan struct{})}
	if raw {
		before, err := term.MakeRaw(int(files[0].Fd()))
		if err != nil {
			return nil, errdefs.Host.Errorf("make the terminal raw: %w", err)
		}
		t.in, t.before = files[0], before
	}
	signal.Notify(t.notes, syscall.SIGWINCH, syscall.SIGCONT)
	t.ended.Go(t.watch)
	return t, nil
}

// Sizes are the terminal's, each time that it changes.
func (t *Terminal) Sizes() chan api.TerminalSize { return t.sizes }

// Raw reports whether every key is passed on.
func (t *Terminal) Raw() bool { return t.in != nil }

func (t *Terminal) watch() {
	for {
		select {
		case <-t.done:
			return
		case s := <-t.notes:
			if s == syscall.SIGCONT { // who stopped us had the terminal meanwhile
				t.again()
			}
			select {
			case t.sizes <- Size(t.files...):
			default: // nobody is there yet, or any more
			}
		}
	}
}

func (t *Terminal) again() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.in != nil && !t.over {
		_, _ = term.MakeRaw(int(t.in.Fd()))
	}
}

// Flush forgets what was typed, or answered by the terminal itself, and not read yet.
func (t *Terminal) Flush() {
	if t.in != nil {
		_ = unix.IoctlSetInt(int(t.in.Fd()), unix.TCFLSH, unix.TCIFLUSH)
	}
}

// Close gives the terminal back as it was. It may be called more than once.
func (t *Terminal) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	t.over = true
	if t.in != nil {
		_ = term.Restore(int(t.in.Fd()), t.before)
	}
	signal.Stop(t.notes)
	close(t.done)
}
