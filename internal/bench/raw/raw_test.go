package raw

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSkipped: where nothing can be measured, each figure says so and misses nothing.
func TestSkipped(t *testing.T) {
	got := Skipped("no KVM")
	if len(got) != 3 {
		t.Fatalf("%d figures", len(got))
	}
	for _, f := range got {
		if !f.OK || f.Skipped != "no KVM" || f.Goal == "" {
			t.Errorf("%+v", f)
		}
	}
}

// TestConnect: of the monitor's answer not a byte more is read than its line, and another one is none.
func TestConnect(t *testing.T) {
	for answer, ok := range map[string]bool{"OK 1073741824\nhello": true, "NO\nhello": false, "": false} {
		dir := t.TempDir()
		var lc net.ListenConfig
		l, err := lc.Listen(t.Context(), "unix", filepath.Join(dir, "vsock.sock"))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(c).ReadString('\n')
			_, _ = io.WriteString(c, answer)
			_ = c.Close()
		}()
		p := &process{dir: dir, exited: make(chan struct{})}
		c, err := p.connect(t.Context(), 1024)
		if (err == nil) != ok {
			t.Errorf("%q: %v", answer, err)
		}
		if err == nil {
			if rest, _ := io.ReadAll(c); string(rest) != "hello" {
				t.Errorf("%q: %q is left", answer, rest)
			}
			_ = c.Close()
		}
		_ = l.Close()
	}
}

// TestEnded: nobody waits for a monitor that has ended.
func TestEnded(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "firecracker")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho no such kernel >&2\nexit 1\n"), 0o700); err != nil { //nolint:gosec // it runs
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := spawn(ctx, script, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if _, err := p.guest(ctx, 1024); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
