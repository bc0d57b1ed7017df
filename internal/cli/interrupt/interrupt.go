// Package interrupt decides what signals do to the program.
//
// Layer: part of the front cli. It imports none of ours.
package interrupt

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
)

// Signals decides what a signal does. While a command runs in a guest the first one is its; otherwise the first one
// ends what is being done, in order. The next one ends that too, and one more the program at once.
type Signals struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	ch     chan os.Signal
	pipe   chan os.Signal
	done   chan struct{}

	ctrlC   atomic.Bool
	mu      sync.Mutex
	forward chan os.Signal // to the guest's command; nil while there is none
	before  func()         // called when the program ends at once
}

// Watch begins to receive signals.
func Watch(ctx context.Context) *Signals {
	ctx, cancel := context.WithCancelCause(ctx)
	i := &Signals{
		ctx: ctx, cancel: cancel, ch: make(chan os.Signal, 8), pipe: make(chan os.Signal, 1), done: make(chan struct{}),
	}
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1)
		signals = append(signals, syscall.SIGHUP)
	}
	signal.Notify(i.ch, signals...)
	go i.watch()
	return i
}

// Close ends it.
func (i *Signals) Close() {
	signal.Stop(i.ch)
	signal.Stop(i.pipe)
	close(i.done)
	i.cancel(nil)
}

func (i *Signals) watch() {
	for {
		select {
		case <-i.done:
			return
		case s := <-i.ch:
			i.handle(s)
		}
	}
}

func (i *Signals) handle(s os.Signal) {
	if s == os.Interrupt {
		i.ctrlC.Store(true)
	}
	if i.pass(s) {
		return
	}
	if i.ctx.Err() != nil {
		i.mu.Lock()
		if i.before != nil {
			i.before()
		}
		os.Exit(signalCode(s))
	}
	i.cancel(ExitError{signalCode(s)})
}

// pass gives the first signal to the guest's command.
func (i *Signals) pass(s os.Signal) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.forward == nil {
		return false
	}
	select {
	case i.forward <- s:
	default:
	}
	i.forward = nil
	return true
}

// BeforeExit says what must be done also when one signal too many ends the program at once.
func (i *Signals) BeforeExit(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.before = f
}

// Pipes makes a broken pipe on our output an error and no death.
func (i *Signals) Pipes() { signal.Notify(i.pipe, syscall.SIGPIPE) }

// Own takes the first signal back from the guest's command.
func (i *Signals) Own() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forward = nil
}

// Command begins the time in which a guest's command gets the first signal. The function returned ends it. In that time
// a broken pipe on our output is an error and no death, so that what was made is removed.
func (i *Signals) Command() (<-chan os.Signal, func()) {
	i.Pipes()
	ch := make(chan os.Signal, 1)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forward = ch
	return ch, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.forward = nil
	}
}

// CtrlC reports whether the user interrupted us, or the guest's command.
func (i *Signals) CtrlC() bool { return i.ctrlC.Load() }

// Context ends with the first signal that is ours.
func (i *Signals) Context() context.Context { return i.ctx }

// End ends the context as a signal does.
func (i *Signals) End(code int) { i.cancel(ExitError{code}) }

// ExitError ends the program with a code and without a message.
type ExitError struct{ Code int }

func (e ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// signalCode is the exit code of a program that a signal ended, as shells have it.
func signalCode(s os.Signal) int {
	if n, ok := s.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return 1
}
