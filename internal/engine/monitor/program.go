package monitor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/child"
	"github.com/smolvm/smolvm/internal/sys/tail"
)

// askTime bounds the wait for a program to say its version.
const askTime = 10 * time.Second

// Programs finds a kind of monitor and remembers what each file of it said of itself, which Parse makes a V of.
type Programs[V any] struct {
	Title  string // in errors: "QEMU"
	Remedy string // where there is none
	Parse  func(said []byte) (V, error)

	mu    sync.Mutex
	known map[string]known[V] // by path
}

type known[V any] struct {
	info fs.FileInfo
	Program[V]
}

// Program is one that was found and asked.
type Program[V any] struct {
	Path    string // absolute, of the file itself
	Version V
	Build   string // changes whenever the file does

	Libraries Libraries
}

// Find finds the program called want, a path or a name to look for in PATH, and what it is.
func (p *Programs[V]) Find(ctx context.Context, want string) (Program[V], error) {
	path, err := exec.LookPath(want)
	if err != nil {
		return Program[V]{}, errdefs.Host.Errorf("%s is not installed: %w", p.Title, err).WithRemedy("%s", p.Remedy)
	}
	if path, err = filepath.Abs(path); err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return Program[V]{}, errdefs.Host.Errorf("find %s: %w", want, err).WithRemedy("%s", p.Remedy)
	}
	return p.look(ctx, path)
}

// Libraries are those of a program that was found.
func (p *Programs[V]) Libraries(path string) Libraries {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[path].Libraries
}

// look asks the program for its version, once for as long as the file is the same.
func (p *Programs[V]) look(ctx context.Context, path string) (Program[V], error) {
	info, err := os.Stat(path)
	if err != nil {
		return Program[V]{}, errdefs.Host.Errorf("%s: %w", p.Title, err).WithRemedy("%s", p.Remedy)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if k, ok := p.known[path]; ok && os.SameFile(k.info, info) && k.info.Size() == info.Size() && k.info.ModTime().Equal(info.ModTime()) {
		return k.Program, nil
	}
	found, err := p.ask(ctx, path, info)
	if err != nil {
		return found, errdefs.Host.Errorf("%w", err).WithRemedy("%s", p.Remedy)
	}
	if p.known == nil {
		p.known = map[string]known[V]{}
	}
	p.known[path] = known[V]{info, found}
	return found, nil
}

func (p *Programs[V]) ask(ctx context.Context, path string, info fs.FileInfo) (Program[V], error) {
	libraries := make(chan Libraries, 1)
	go func() { libraries <- linked(ctx, path) }()
	said, err := Ask(ctx, path)
	found := Program[V]{Path: path, Libraries: <-libraries}
	if err != nil {
		return found, err
	}
	if found.Version, err = p.Parse(said); err != nil {
		return found, fmt.Errorf("%s: %w", path, err)
	}
	// What it says may name a distribution's package; size and time tell a build of one's own. Only the first line counts:
	// Firecracker logs below it that it ends, and when.
	first, _, _ := bytes.Cut(said, []byte("\n"))
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%d\n%d", path, first, info.Size(), info.ModTime().UnixNano()))
	found.Build = hex.EncodeToString(sum[:8])
	return found, nil
}

// Ask returns what the program at path says to --version.
func Ask(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var out tail.Buffer
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	c, err := child.Start(cmd)
	if err == nil {
		err = c.Wait()
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s for its version: %w: %s", path, err, out.Lines(5))
	}
	return out.Bytes(), nil
}
