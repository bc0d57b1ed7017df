package lifecycle

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// TestProcesses: commands that outlive their client, through the supervisor.
func TestProcesses(t *testing.T) {
	m := rig(t, "")
	started(t, m, "p")
	g, err := m.Connect(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Close() }()
	for name, f := range map[string]func(*testing.T, *Manager, Guest){
		"terminal": procTerminal, "silent input": procSilent, "attach": procAttach, "keep": procKeep, "names": procNames, "slow reader": procSlow,
	} {
		t.Run(name, func(t *testing.T) { f(t, m, g) })
	}
	st, err := m.Stats(t.Context(), "p")
	if err != nil || st.State != api.StateRunning || st.Guest == nil || st.Guest.MemoryTotal == 0 || st.HostMemory == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	t.Run("the VM ends", func(t *testing.T) { procVMEnds(t, m, g) })
}

func procTerminal(t *testing.T, _ *Manager, g Guest) {
	sizes := make(chan api.TerminalSize, 1)
	up, resized := &notice{want: "up 20 70", ch: make(chan struct{})}, &notice{want: "now 30 90", ch: make(chan struct{})}
	r, w := io.Pipe()
	go func() {
		<-up.ch
		sizes <- api.TerminalSize{Rows: 30, Cols: 90}
		<-resized.ch
		_, _ = w.Write([]byte("\x03"))
	}()
	req := api.ExecRequest{
		Script: `trap 'echo now $(stty size)' WINCH; trap 'exit 4' INT; echo up $(stty size) $TERM; while :; do sleep 0.05; done`,
		TTY:    &api.TTY{TerminalSize: api.TerminalSize{Rows: 20, Cols: 70}, Term: "xterm"}, Stdin: true,
	}
	res, err := g.Exec(t.Context(), req, ExecIO{Stdin: r, Stdout: io.MultiWriter(up, resized), Sizes: sizes})
	if err != nil || res.ExitCode != 4 || !strings.Contains(up.got, "up 20 70 xterm\r\n") {
		t.Errorf("%+v, %v, %q", res, err, up.got)
	}
}

// procSilent: who leaves while his input is silent leaves at once, and his command ends or goes on as it is to.
func procSilent(t *testing.T, _ *Manager, g Guest) {
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	var id string
	for _, attach := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		up := &notice{want: "up", ch: make(chan struct{})}
		go func() {
			<-up.ch
			cancel()
		}()
		done := make(chan error, 1)
		go func() {
			var err error
			if attach {
				_, err = g.Attach(ctx, api.AttachRequest{Process: id, Stdin: true}, AttachIO{ExecIO: ExecIO{Stdin: r, Stdout: up}})
			} else {
				_, err = g.Exec(ctx, api.ExecRequest{Script: "echo up; cat", Stdin: true, TTY: &api.TTY{}},
					ExecIO{Stdin: r, Stdout: up, Started: func(p api.ProcessInfo) { id = p.ExecID }})
			}
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Error("no error of one who left")
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("attach %v: he does not leave", attach)
		}
		if attach {
			continue
		}
		eventually(t, 10*time.Second, "the command ended", func() bool {
			p, err := g.Process(t.Context(), id)
			return err == nil && p.Result != nil
		})
		info, err := g.StartDetached(t.Context(), api.ExecRequest{Script: "echo up; exec sleep 94", Stdin: true})
		if err != nil {
			t.Fatal(err)
		}
		id = info.ExecID
	}
	p, err := g.Process(t.Context(), id)
	if err != nil || p.Result != nil {
		t.Errorf("%+v, %v", p, err)
	}
	if err := g.Signal(t.Context(), id, 9, true); err != nil {
		t.Error(err)
	}
}

func procAttach(t *testing.T, m *Manager, g Guest) {
	info, err := g.StartDetached(t.Context(), api.ExecRequest{Script: "echo one; sleep 0.2; echo two >&2; read x; echo $x; exit 3", Stdin: true})
	if err != nil || info.ExecID == "" || info.PID <= 0 {
		t.Fatalf("%+v, %v", info, err)
	}
	other, err := m.Connect(t.Context(), "p") // another client, which leaves
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen := &notice{want: "two", ch: make(chan struct{})}
	go func() {
		<-seen.ch
		cancel()
	}()
	if _, err := other.Attach(ctx, api.AttachRequest{Process: info.ExecID}, AttachIO{ExecIO: ExecIO{Stdout: seen, Stderr: seen}}); err == nil {
		t.Error("it did not leave")
	}
	_ = other.Close()
	var wait sync.WaitGroup
	wait.Go(func() {
		if res, err := g.Wait(t.Context(), info.ExecID); err != nil || res.ExitCode != 3 {
			t.Errorf("wait: %+v, %v", res, err)
		}
	})
	var out, errs bytes.Buffer
	var began api.Process
	to := AttachIO{ExecIO: ExecIO{Stdin: strings.NewReader("three\n"), Stdout: &out, Stderr: &errs}, Began: func(p api.Process) { began = p }}
	res, err := g.Attach(t.Context(), api.AttachRequest{Process: info.ExecID[:8], Offset: 2, Stdin: true}, to)
	if err != nil || res.Result == nil || res.Result.ExitCode != 3 || out.String() != "e\nthree\n" || errs.String() != "two\n" || res.Offset != 14 {
		t.Errorf("%+v, %v, %q, %q", res, err, out.String(), errs.String())
	}
	if began.ExecID != info.ExecID || !began.Detached || !began.Stdin || began.Command == "" || began.User != "root" {
		t.Errorf("%+v", began)
	}
	wait.Wait()
	p, err := g.Process(t.Context(), info.ExecID)
	if err != nil || p.Result == nil || p.Result.ExitCode != 3 || p.Ended == nil || p.OutputBytes != 14 {
		t.Errorf("%+v, %v", p, err)
	}
}

func procKeep(t *testing.T, m *Manager, g Guest) {
	other, err := m.Connect(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	id := ""
	_, err = other.Exec(ctx, api.ExecRequest{Script: "sleep 0.5; echo lived"}, ExecIO{Started: func(p api.ProcessInfo) {
		id = p.ExecID
		if err := other.Keep(t.Context(), id); err != nil {
			t.Error(err)
		}
		cancel()
	}})
	_ = other.Close()
	var out bytes.Buffer
	res, aerr := g.Attach(t.Context(), api.AttachRequest{Process: id}, AttachIO{ExecIO: ExecIO{Stdout: &out}})
	if err == nil || aerr != nil || res.Result == nil || res.Result.ExitCode != 0 || out.String() != "lived\n" {
		t.Errorf("%v, %v, %+v, %q", err, aerr, res, out.String())
	}
}

func procNames(t *testing.T, _ *Manager, g Guest) {
	ctx := t.Context()
	_, werr := g.Wait(ctx, "nobody")
	_, perr := g.Process(ctx, "nobody")
	for name, err := range map[string]error{"wait": werr, "process": perr, "keep": g.Keep(ctx, "nobody"), "signal": g.Signal(ctx, "nobody", 15, false)} {
		if !errdefs.Is(err, errdefs.NotFound) || errdefs.RemedyOf(err) != "smolvm ps -a p" {
			t.Errorf("%s: %v, try %q", name, err, errdefs.RemedyOf(err))
		}
	}
	if _, err := g.Exec(ctx, api.ExecRequest{Shell: true, Argv: []string{"x"}}, ExecIO{}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("a shell with arguments: %v", err)
	}
	info, err := g.StartDetached(ctx, api.ExecRequest{Argv: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := g.Processes(ctx)
	if err != nil || !slices.ContainsFunc(all, func(p api.Process) bool { return p.ExecID == info.ExecID }) {
		t.Errorf("%v, %v", all, err)
	}
}

// procSlow: a client that does not read holds up nobody.
func procSlow(t *testing.T, m *Manager, g Guest) {
	info, err := g.StartDetached(t.Context(), api.ExecRequest{Script: "read go; head -c 33554432 /dev/zero; echo end", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	slow, err := m.Connect(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	begun, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		_, _ = slow.Attach(ctx, api.AttachRequest{Process: info.ExecID}, AttachIO{
			ExecIO: ExecIO{Stdout: writerFunc(func(p []byte) (int, error) { <-ctx.Done(); return len(p), nil })},
			Began:  func(api.Process) { close(begun) },
		})
	}()
	<-begun
	var seen, gone uint64
	limit, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	res, err := g.Attach(limit, api.AttachRequest{Process: info.ExecID, Stdin: true}, AttachIO{
		ExecIO: ExecIO{Stdin: strings.NewReader("\n"), Stdout: writerFunc(func(p []byte) (int, error) { seen += uint64(len(p)); return len(p), nil })},
		Gap:    func(n uint64) { gone += n },
	})
	if err != nil || res.Result == nil || seen+gone != 32<<20+4 || res.Offset != seen+gone {
		t.Errorf("%+v, %v, %d bytes, %d gone", res, err, seen, gone)
	}
	cancel()
	<-over
	_ = slow.Close()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// procVMEnds: who is attached or waits learns that the VM has ended.
func procVMEnds(t *testing.T, m *Manager, g Guest) {
	info, err := g.StartDetached(t.Context(), api.ExecRequest{Script: "trap '' TERM; while :; do sleep 0.1; done"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { // the guest is in this machine, and has no power to switch off
		if info.PID > 1 {
			_ = syscall.Kill(info.PID, syscall.SIGKILL)
		}
	}()
	done := make(chan error, 2)
	go func() { _, err := g.Wait(t.Context(), info.ExecID); done <- err }()
	go func() {
		_, err := g.Attach(t.Context(), api.AttachRequest{Process: info.ExecID}, AttachIO{})
		done <- err
	}()
	time.Sleep(200 * time.Millisecond)
	if err := m.Stop(t.Context(), "p", StopOptions{Kill: true}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "VM p ended") && !strings.Contains(err.Error(), "supervisor is gone") {
				t.Errorf("%v", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nobody told")
		}
	}
}
