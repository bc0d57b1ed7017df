// Package session joins a command in a guest to the user's terminal and streams, and decides with which code we end.
//
// Layer: part of the front cli. It may import lifecycle, api, errdefs, and the parts of cli below it.
package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/interrupt"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/stream"
	"github.com/smolvm/smolvm/internal/cli/terminal"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// Exit codes that are ours and not the command's.
const (
	exitTimeout = 124
	exitPipe    = 128 + 13
)

// Session is what a command gets of us.
type Session struct {
	Stdin, Stdout, Stderr *os.File
	Signals               *interrupt.Signals
	VM                    string
	JSON                  bool          // collect what it prints
	Keys                  terminal.Keys // that detach
}

// Runner runs commands.
type Runner interface {
	Exec(ctx context.Context, req api.ExecRequest, streams lifecycle.ExecIO) (api.ExecResult, error)
	Keep(ctx context.Context, process string) error
}

// Detached says that the user left a command, which goes on.
type Detached struct{ Process string }

func (d Detached) Error() string { return "detached from " + d.Process }

// TTY is the terminal that a command gets of us. Where we have none, it has the size of an old one. What input it reads must
// come from a terminal too.
func TTY(stdin, stdout *os.File, input bool) (*api.TTY, error) {
	if input && !terminal.Is(stdin) {
		return nil, errdefs.Invalid.Errorf("the input is no terminal").WithRemedy("-i without -t, for input from a file or a program")
	}
	return &api.TTY{TerminalSize: terminal.Size(stdin, stdout), Term: os.Getenv("TERM")}, nil
}

// Run runs a command and returns an error that carries its exit code, or a Detached.
func (s Session) Run(ctx context.Context, g Runner, req api.ExecRequest) error {
	j, err := s.join(ctx, req.TTY != nil, req.Stdin)
	if err != nil {
		return err
	}
	defer j.close()
	started := make(chan struct{})
	var id string
	j.Started = func(p api.ProcessInfo) {
		id = p.ExecID
		close(started)
	}
	j.leave = func() error {
		select {
		case <-started:
			return errors.Join(g.Keep(j.ctx, id), Detached{id})
		case <-j.ctx.Done():
			return context.Cause(j.ctx)
		}
	}
	res, err := g.Exec(j.ctx, req, j.ExecIO)
	j.close()
	if err != nil {
		return err
	}
	if s.JSON {
		if err := show.JSON(s.Stdout, execOutput{ID: s.VM, ExecResult: res, Output: j.collect()}); err != nil {
			return err
		}
	} else {
		s.tellEnd(time.Duration(req.TimeoutMs)*time.Millisecond, res)
	}
	return ExitWith(res)
}

// joint is a command that is joined to our streams.
type joint struct {
	lifecycle.ExecIO
	ctx            context.Context //nolint:containedctx // the session's
	term           *terminal.Terminal
	stdout, stderr stream.Capture
	leave          func() error // what the user's leaving means
	close          func()
}

// join prepares our streams. A command that reads our terminal has all its keys; else the first signal is the command's.
func (s Session) join(ctx context.Context, tty, input bool) (*joint, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	j := &joint{ctx: ctx}
	j.Stdin = s.Stdin
	if s.JSON {
		j.Stdout, j.Stderr = &j.stdout, &j.stderr
	} else {
		broken := func() { s.Signals.End(exitPipe) }
		j.Stdout, j.Stderr = &stream.Pipe{W: s.Stdout, Broken: broken}, &stream.Pipe{W: s.Stderr, Broken: broken}
	}
	raw := tty && input && terminal.Is(s.Stdin)
	over := s.Signals.Pipes
	if !raw {
		j.Signals, over = s.Signals.Command()
	} else {
		over()
		over = func() {}
	}
	j.close = sync.OnceFunc(func() {
		if j.term != nil {
			j.term.Close()
		}
		over()
		cancel(nil)
	})
	if !tty {
		return j, nil
	}
	var err error
	if j.term, err = terminal.Open(raw, s.Stdin, s.Stdout); err != nil {
		j.close()
		return nil, err
	}
	s.Signals.BeforeExit(j.term.Close)
	j.Sizes = j.term.Sizes()
	if raw {
		j.Stdin = &terminal.Input{R: s.Stdin, Keys: s.Keys, Detach: func() { cancel(j.leave()) }}
	}
	return j, nil
}

func (j *joint) collect() stream.Output { return stream.Collect(&j.stdout, &j.stderr) }

// tellEnd says what the command itself could not.
func (s Session) tellEnd(timeout time.Duration, res api.ExecResult) {
	switch {
	case res.TimedOut && timeout > 0:
		s.say("the command was ended after its timeout of %s", timeout)
	case res.TimedOut:
		s.say("the command was ended after its timeout")
	case res.Error != "":
		s.say("%s", show.Escape(res.Error))
	}
}

func (s Session) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.Stderr, "smolvm: "+format+"\n", args...)
}

// ExitWith is an error with the exit code of a command.
func ExitWith(res api.ExecResult) error {
	switch {
	case res.TimedOut:
		return interrupt.ExitError{Code: exitTimeout}
	case res.ExitCode != 0:
		return interrupt.ExitError{Code: res.ExitCode & 0xff}
	}
	return nil
}

// Left turns a Detached into a remark.
func (s Session) Left(err error) error {
	d, ok := errors.AsType[Detached](err)
	if !ok {
		return err
	}
	s.say("detached; smolvm attach %s %s", s.VM, show.Cell(d.Process))
	return nil
}

// execOutput is what --json prints of a command.
type execOutput struct {
	ID string `json:"id"`
	api.ExecResult
	stream.Output
}

// Attacher joins commands that were started before.
type Attacher interface {
	Attach(ctx context.Context, req api.AttachRequest, streams lifecycle.AttachIO) (api.AttachResult, error)
}

// attachOutput is what --json prints of what a command has printed.
type attachOutput struct {
	ID      string          `json:"id"`
	Process string          `json:"exec_id"`
	From    uint64          `json:"from"`             // where this output begins
	Offset  uint64          `json:"offset"`           // where it ends
	Gone    uint64          `json:"gone,omitempty"`   // bytes that are not kept any more
	Result  *api.ExecResult `json:"result,omitempty"` // nil while it runs
	stream.Output
}

// Attach joins the command p. With proxy, signals to us are the command's.
func (s Session) Attach(ctx context.Context, g Attacher, p api.Process, req api.AttachRequest, proxy bool) error {
	req.Process, req.Stdin = p.ExecID, req.Stdin && p.Stdin && !req.NoFollow
	j, err := s.join(ctx, p.TTY && req.Stdin, req.Stdin)
	if err != nil {
		return err
	}
	defer j.close()
	if !proxy {
		j.Signals = nil
		s.Signals.Own()
	}
	j.leave = func() error { return Detached{p.ExecID} }
	var gone uint64
	streams := lifecycle.AttachIO{ExecIO: j.ExecIO}
	over := func(uint64) {}
	if j.term != nil && j.term.Raw() {
		// What is replayed may ask the terminal for something, and its answer is no input of the command.
		g := &gate{left: p.OutputBytes - min(req.Offset, p.OutputBytes), open: make(chan struct{})}
		over = g.pass
		streams.Stdout = io.MultiWriter(streams.Stdout, g)
		streams.Stdin = &gatedReader{j.Stdin, g.open, j.term.Flush}
		size := terminal.Size(s.Stdin, s.Stdout)
		streams.Sizes = sizes(j.term.Sizes(), size)
		g.pass(0)
	}
	streams.Gap = func(n uint64) {
		gone += n
		over(n)
		if !s.JSON {
			line := fmt.Sprintf("smolvm: %d bytes of output are gone\n", n)
			if j.term != nil && j.term.Raw() {
				line = strings.ReplaceAll(line, "\n", "\r\n")
			}
			_, _ = io.WriteString(s.Stderr, line)
		}
	}
	res, err := g.Attach(j.ctx, req, streams)
	j.close()
	if err != nil {
		return err
	}
	if s.JSON {
		out := attachOutput{ID: s.VM, Process: p.ExecID, From: req.Offset, Offset: res.Offset, Gone: gone, Result: res.Result, Output: j.collect()}
		if err := show.JSON(s.Stdout, out); err != nil || req.NoFollow {
			return err
		}
	}
	if res.Result == nil || req.NoFollow {
		return nil
	}
	if !s.JSON {
		s.tellEnd(0, *res.Result)
	}
	return ExitWith(*res.Result)
}

// sizes begins with another size than the terminal has, so that what is drawn is drawn anew.
func sizes(ch chan api.TerminalSize, now api.TerminalSize) <-chan api.TerminalSize {
	ch <- api.TerminalSize{Rows: now.Rows + 1, Cols: now.Cols}
	ch <- now
	return ch
}

// gate opens when the output that was there before has passed it.
type gate struct {
	mu   sync.Mutex
	left uint64
	open chan struct{}
	once sync.Once
}

func (g *gate) pass(n uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left -= min(g.left, n)
	if g.left == 0 {
		g.once.Do(func() { close(g.open) })
	}
}

// Write implements io.Writer.
func (g *gate) Write(p []byte) (int, error) {
	g.pass(uint64(len(p)))
	return len(p), nil
}

// gatedReader waits for a gate before its first byte.
type gatedReader struct {
	io.Reader
	open  <-chan struct{}
	flush func()
}

// Read implements io.Reader.
func (r *gatedReader) Read(p []byte) (int, error) {
	if r.open != nil {
		<-r.open
		r.open = nil
		r.flush()
	}
	return r.Reader.Read(p)
}
