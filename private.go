package smolvm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/smolvm/smolvm/errdefs"
)

const (
	begins   = 60 * time.Second // a server on a loaded machine
	ends     = 15 * time.Second
	maxPath  = 100 // of a socket: an address holds 108 bytes
	maxWords = 8 << 10
)

// private is a server of our own: a child that ends when our end of its input does, however we end.
type private struct {
	binary, home string

	mu     sync.Mutex
	child  *child // nil before the first call
	closed bool
}

type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	dir    string
	socket string
	words  tail // its standard error
	gone   chan struct{}
}

// dial connects to the server, which is started when there is none, or the one that was has ended.
func (p *private) dial(ctx context.Context) (net.Conn, error) {
	for again := false; ; again = true {
		k, err := p.running(ctx)
		if err != nil {
			return nil, err
		}
		c, err := new(net.Dialer).DialContext(ctx, "unix", k.socket)
		if err == nil || again {
			return c, err
		}
		select {
		case <-k.gone:
		case <-time.After(time.Second): // its end is near: nobody listens
			return nil, err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (p *private) running(ctx context.Context) (*child, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errdefs.WrongState.Errorf("the client is closed")
	}
	if p.child != nil {
		select {
		case <-p.child.gone:
		default:
			return p.child, nil
		}
	}
	k, err := p.start(ctx)
	if err == nil {
		p.child = k
	}
	return k, err
}

// find returns the program: SMOLVM_BIN, beside our executable, in PATH.
func (p *private) find() (string, error) {
	for _, name := range []string{p.binary, os.Getenv("SMOLVM_BIN")} {
		if name != "" {
			return filepath.Abs(name)
		}
	}
	if own, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(own), "smolvm")
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 && beside != own {
			return beside, nil
		}
	}
	path, err := exec.LookPath("smolvm")
	if err != nil {
		return "", errdefs.Host.Errorf("the program smolvm is not there: %w", err).WithRemedy("install it, or name it by SMOLVM_BIN")
	}
	return filepath.Abs(path)
}

// start starts a server and returns once it listens.
func (p *private) start(ctx context.Context) (_ *child, err error) {
	bin, err := p.find()
	if err != nil {
		return nil, err
	}
	parent := os.TempDir()
	if len(parent) > maxPath-len("/smolvm-0123456789/s.sock") {
		parent = "/tmp"
	}
	k := &child{gone: make(chan struct{})}
	if k.dir, err = os.MkdirTemp(parent, "smolvm-"); err != nil { // 0700
		return nil, errdefs.Host.Errorf("a directory for the server's socket: %w", err)
	}
	k.socket = filepath.Join(k.dir, "s.sock")
	k.cmd = exec.CommandContext(context.WithoutCancel(ctx), bin, "serve", "--socket", k.socket, "--exit-with-stdin")
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for us
	k.cmd.Stderr = &k.words
	if p.home != "" {
		k.cmd.Env = append(slices.Clip(os.Environ()), "SMOLVM_HOME="+p.home)
	}
	k.stdin, err = k.cmd.StdinPipe()
	out, oerr := k.cmd.StdoutPipe()
	if err = errors.Join(err, oerr); err == nil {
		err = k.cmd.Start()
	}
	if err != nil {
		_ = os.RemoveAll(k.dir)
		return nil, errdefs.Host.Errorf("start the smolvm server: %w", err).WithRemedy("let SMOLVM_BIN name the program")
	}
	ready := make(chan error, 1)
	go k.watch(out, ready)
	limit := time.NewTimer(begins)
	defer limit.Stop()
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = failure(ctx, context.Cause(ctx))
	case <-limit.C:
		err = errdefs.Unavailable.Errorf("the smolvm server did not listen within %s: %s", begins, k.words.text())
	}
	if err != nil {
		_ = k.end()
		return nil, err
	}
	return k, nil
}

// watch waits for the line that says that it listens, and then for its end.
func (k *child) watch(out io.Reader, ready chan<- error) {
	var first struct {
		Socket  string `json:"socket"`
		Version string `json:"version"`
	}
	err := json.NewDecoder(out).Decode(&first)
	listens := err == nil && first.Socket == k.socket && first.Version != ""
	if listens {
		ready <- nil
		_, _ = io.Copy(io.Discard, out)
	} else {
		_ = k.cmd.Process.Kill()
	}
	_ = k.cmd.Wait()
	_ = os.RemoveAll(k.dir)
	close(k.gone)
	if !listens {
		ready <- errdefs.Unavailable.Errorf("the smolvm server %s does not start: %s", k.cmd.Path, k.words.text()).
			WithRemedy("smolvm doctor")
	}
}

// end lets it finish what is under way.
func (k *child) end() error {
	_ = k.stdin.Close()
	select {
	case <-k.gone:
	case <-time.After(ends):
		_ = k.cmd.Process.Kill()
		<-k.gone
	}
	return nil
}

func (p *private) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.child == nil {
		return nil
	}
	k := p.child
	p.child = nil
	return k.end()
}

// tail keeps the end of what is written.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p)
	if extra := t.buf.Len() - maxWords; extra > 0 {
		t.buf.Next(extra)
	}
	return len(p), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(t.buf.String())
}
