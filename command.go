package smolvm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// Cmd is a command in a VM, after os/exec's. Its exported fields are for before Start. A Cmd is used once.
type Cmd struct {
	// Args are the program and its arguments; a Script runs in a login shell instead.
	Args   []string
	Script string
	Env    map[string]string // over the VM's own
	Dir    string            // default: the user's home
	User   string            // default: root
	// Stdin is what it reads; nil: nothing. A Read that does not return is left behind when the command ends.
	Stdin io.Reader
	// Stdout and Stderr take what it prints; nil: nobody does. A Write that waits holds the command up.
	Stdout, Stderr io.Writer
	// Timeout ends the command with all that it started; 0: none.
	Timeout time.Duration
	// TTY gives it a terminal, whose output is all on Stdout.
	TTY *api.TTY
	// Keep lets it go on when the connection ends, by ctx or in any other way.
	Keep bool

	vm   *VM
	ctx  context.Context //nolint:containedctx // as in os/exec, the command's life
	ws   *websocket.Conn
	info api.ProcessInfo
	stop func()

	done chan struct{}
	res  api.ExecResult
	err  error
	sent sync.Mutex
}

// ExitError is a command that failed.
type ExitError struct {
	api.ExecResult
	// Stderr is the beginning of what it printed there, if Output ran it and nobody else took it.
	Stderr []byte
}

// Error implements error.
func (e *ExitError) Error() string {
	switch {
	case e.TimedOut:
		return "the command was ended after its timeout"
	case e.ExecResult.Error != "":
		return e.ExecResult.Error
	case e.Signal != "":
		return "the command was ended by " + e.Signal
	}
	return fmt.Sprintf("the command ended with exit code %d", e.ExitCode)
}

// Command returns a command that is not started yet. The end of ctx kills it, with all that it started.
func (vm *VM) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{Args: append([]string{name}, args...), vm: vm, ctx: ctx}
}

// ExecID is the command's name among those of the VM, once it was started.
func (c *Cmd) ExecID() string { return c.info.ExecID }

// PID is its process in the guest, once it was started.
func (c *Cmd) PID() int { return c.info.PID }

const maxMessage = 2 * api.MaxStreamMessage

func (c *Cmd) request() api.ExecRequest {
	req := api.ExecRequest{
		Argv: c.Args, Env: c.Env, Cwd: c.Dir, User: c.User, Stdin: c.Stdin != nil, TTY: c.TTY, TimeoutMs: c.Timeout.Milliseconds(),
	}
	if c.Script != "" {
		req.Argv, req.Script, req.Login = nil, c.Script, true
	}
	if c.Keep {
		req.OnDisconnect = api.DisconnectKeep
	}
	return req
}

// Start starts the command and returns once it runs. Wait has to follow.
func (c *Cmd) Start() error {
	if c.done != nil {
		return errdefs.WrongState.Errorf("the command was started already")
	}
	req := c.request()
	if err := req.Validate(); err != nil {
		return err
	}
	if err := c.vm.ready(c.ctx); err != nil {
		return err
	}
	if err := c.dial(req); err != nil {
		return err
	}
	started := make(chan struct{})
	c.done = make(chan struct{})
	unhook := context.AfterFunc(c.ctx, func() { _ = c.ws.CloseNow() })
	c.stop = func() { unhook() }
	go c.receive(sync.OnceFunc(func() { close(started) }))
	select {
	case <-started:
	case <-c.done:
		if c.info.ExecID == "" && c.err != nil {
			return c.err // it never ran
		}
	}
	if c.Stdin != nil {
		go c.feed()
	}
	return nil
}

// dial makes the connection and says what is to run.
func (c *Cmd) dial(req api.ExecRequest) error {
	header := http.Header{}
	c.vm.c.authorize(header)
	ws, res, err := websocket.Dial(c.ctx, c.vm.c.base+speaks+c.vm.at("/exec/ws"), &websocket.DialOptions{
		HTTPClient: c.vm.c.http, HTTPHeader: header, Subprotocols: []string{api.StreamProtocol},
	})
	if res != nil && res.Body != nil {
		defer func() { _ = res.Body.Close() }()
	}
	if err != nil {
		if res != nil && res.StatusCode >= http.StatusBadRequest {
			return refusal(res)
		}
		return failure(c.ctx, err)
	}
	ws.SetReadLimit(maxMessage)
	b, err := json.Marshal(req)
	if err == nil {
		err = ws.Write(c.ctx, websocket.MessageText, b)
	}
	if err != nil {
		_ = ws.CloseNow()
		return failure(c.ctx, err)
	}
	c.ws = ws
	return nil
}

// receive takes what the server sends until the command's end.
func (c *Cmd) receive(started func()) {
	defer close(c.done)
	defer c.stop()
	life := context.WithoutCancel(c.ctx) // its end closes the connection
	for {
		kind, p, err := c.ws.Read(life)
		if err != nil {
			c.err = failure(c.ctx, err)
			return
		}
		var over bool
		if kind == websocket.MessageBinary {
			over, err = false, c.deliver(p)
		} else {
			over, err = c.hear(p, started)
		}
		if err != nil {
			c.err = err
			_ = c.ws.CloseNow()
			return
		}
		if over {
			_ = c.ws.Close(websocket.StatusNormalClosure, "")
			return
		}
	}
}

func (c *Cmd) deliver(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	w := c.Stdout
	if p[0] == api.StreamStderr {
		w = c.Stderr
	}
	if w == nil {
		return nil
	}
	if _, err := w.Write(p[1:]); err != nil {
		return errdefs.Host.Errorf("pass the command's output on: %w", err)
	}
	return nil
}

// hear takes a message that is no output.
func (c *Cmd) hear(p []byte, started func()) (over bool, err error) {
	var m struct {
		Type string `json:"type"`
		api.ExecResult
		problem
		api.ProcessInfo
	}
	if err := json.Unmarshal(p, &m); err != nil {
		return false, errdefs.Unavailable.Errorf("the server's message is malformed: %w", err)
	}
	switch m.Type {
	case api.StreamStarted:
		c.info = m.ProcessInfo
		started()
	case api.StreamExit:
		c.res = m.ExecResult
		return true, nil
	case api.StreamError:
		return false, m.err()
	}
	return false, nil
}

// feed sends the command's input.
func (c *Cmd) feed() {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Stdin.Read(buf)
		if n > 0 && c.send(websocket.MessageBinary, buf[:n]) != nil {
			return
		}
		if err != nil { // an input that fails ends
			_ = c.tell(api.StreamInput{Type: api.StreamStdinEnd})
			return
		}
	}
}

func (c *Cmd) send(kind websocket.MessageType, p []byte) error {
	c.sent.Lock()
	defer c.sent.Unlock()
	return c.ws.Write(context.WithoutCancel(c.ctx), kind, p)
}

func (c *Cmd) tell(m api.StreamInput) error {
	b, err := json.Marshal(m)
	if err == nil {
		err = c.send(websocket.MessageText, b)
	}
	if err != nil {
		return failure(c.ctx, err)
	}
	return nil
}

// Signal sends a signal, such as "SIGTERM", to the command; with all, to everything that it started.
func (c *Cmd) Signal(name string, all bool) error {
	// A request of its own is not held up by input that nobody reads.
	return c.vm.ask(c.ctx, http.MethodPost, "/processes/"+c.info.ExecID+"/signal", api.SignalRequest{Signal: name, Group: all}, nil)
}

// Resize tells the command's terminal its size.
func (c *Cmd) Resize(rows, cols uint16) error {
	return c.vm.ask(c.ctx, http.MethodPost, "/processes/"+c.info.ExecID+"/resize", api.TerminalSize{Rows: rows, Cols: cols}, nil)
}

// Wait waits for the command's end. A command that failed is an *ExitError.
func (c *Cmd) Wait() error {
	if c.done == nil {
		return errdefs.WrongState.Errorf("the command was not started")
	}
	<-c.done
	switch {
	case c.err != nil:
		return c.err
	case c.res.ExitCode != 0:
		return &ExitError{ExecResult: c.res}
	}
	return nil
}

// Result is how the command ended, once Wait has returned.
func (c *Cmd) Result() api.ExecResult { return c.res }

// Run is Start and Wait.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

const keptStderr = 32 << 10

// Output runs the command and returns what it printed on standard output.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errdefs.Invalid.Errorf("Stdout is set already")
	}
	var out bytes.Buffer
	c.Stdout = &out
	var errs *beginning
	if c.Stderr == nil {
		errs = &beginning{}
		c.Stderr = errs
	}
	err := c.Run()
	if failed, is := errors.AsType[*ExitError](err); is && errs != nil {
		failed.Stderr = errs.Bytes()
	}
	return out.Bytes(), err
}

// CombinedOutput runs the command and returns what it printed.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errdefs.Invalid.Errorf("Stdout or Stderr is set already")
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// beginning keeps the beginning of what is written.
type beginning struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *beginning) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), keptStderr-b.Len())])
	return len(p), nil
}
