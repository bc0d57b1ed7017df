package monitor

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/smolvm/smolvm/internal/sys/child"
	"github.com/smolvm/smolvm/internal/sys/tail"
)

// Libraries are what a program is linked with at its start.
type Libraries struct {
	Files []string
	Dirs  []string // where they are, where it is not known which they are
}

// linked finds a program's libraries: it has the program's own loader tell them. The loader looks for them in the same way a
// moment later, so that none is missing then.
func linked(ctx context.Context, path string) Libraries {
	all := Libraries{Dirs: []string{"/usr/lib", "/usr/lib64", "/lib", "/lib64", filepath.Join(filepath.Dir(filepath.Dir(path)), "lib")}}
	f, err := elf.Open(path)
	if err != nil {
		return all
	}
	defer func() { _ = f.Close() }()
	if !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return Libraries{}
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var out limited
	var complaints tail.Buffer
	cmd := exec.CommandContext(ctx, path, "--version") // to a loader that knows no tracing it is a question that is soon answered
	cmd.Env = append(child.Environ(), "LD_TRACE_LOADED_OBJECTS=1")
	cmd.Stdout, cmd.Stderr = &out, &complaints
	cmd.WaitDelay = time.Second
	c, err := child.Start(cmd)
	if err == nil {
		err = c.Wait()
	}
	if err != nil {
		return all
	}
	files, err := traced(out.String())
	if err != nil {
		return all
	}
	return Libraries{Files: files}
}

// limited is what a program says, which it may not say without end.
type limited struct{ bytes.Buffer }

const maxSaid = 1 << 20

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > maxSaid {
		return 0, errors.New("it says too much")
	}
	return l.Buffer.Write(p)
}

// traced reads what a loader tells of what it would load.
func traced(said string) ([]string, error) {
	var files []string
	for line := range strings.Lines(said) {
		name, at, found := strings.Cut(strings.TrimSpace(line), " => ")
		if !found {
			at = name // the loader itself, or what has no file
		}
		at, _, ok := strings.Cut(at, " (0x")
		switch {
		case !ok:
			return nil, errors.New("it is no list of libraries, or one is not found")
		case filepath.IsAbs(at):
			files = append(files, at)
		}
	}
	if len(files) == 0 {
		return nil, errors.New("no libraries are told")
	}
	return files, nil
}
