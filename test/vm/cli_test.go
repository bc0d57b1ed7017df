package vm

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// A boot under emulation takes seconds on an idle machine and much longer on a busy one.
const patience = 4 * time.Minute

// cli runs the program under test.
type cli struct {
	bin string
}

// program returns the program under test, or skips.
func program(t *testing.T) cli {
	t.Helper()
	if os.Getenv("SMOLVM_VM_TESTS") != "1" {
		t.Skip("boots virtual machines; script/test runs it")
	}
	bin := os.Getenv("SMOLVM_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "bin", "smolvm")
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%v; run script/build", err)
	}
	return cli{bin}
}

// result is how one run of the program ended.
type result struct {
	stdout, stderr string
	code           int
}

// command prepares one run in a process group of its own, as a shell's job would be.
func (c cli) command(ctx context.Context, stdin io.Reader, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.bin, args...)
	cmd.Stdin = stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// feed runs the program with stdin to its end.
func (c cli) feed(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := c.command(ctx, stdin, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	err := cmd.Run()
	t.Logf("smolvm %s: %v (%s)", brief(strings.Join(args, " ")), cmd.ProcessState, time.Since(begin).Round(time.Millisecond))
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatalf("smolvm %s: %v\n%s", brief(strings.Join(args, " ")), err, stderr.String())
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// run runs the program without input.
func (c cli) run(t *testing.T, args ...string) result {
	t.Helper()
	return c.feed(t, nil, args...)
}

// ok runs the program, wants success and returns what it printed.
func (c cli) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := c.run(t, args...)
	r.want(t, 0)
	return r.stdout
}

// want checks the exit code and shows everything where it is another one.
func (r result) want(t *testing.T, code int) {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", r.code, code, brief(r.stdout), brief(r.stderr))
	}
}

// prints checks code and standard output.
func (r result) prints(t *testing.T, code int, stdout string) {
	t.Helper()
	r.want(t, code)
	if r.stdout != stdout {
		t.Errorf("stdout %q, want %q\nstderr: %s", brief(r.stdout), brief(stdout), brief(r.stderr))
	}
}

// says checks that standard error holds each text.
func (r result) says(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("stderr does not say %q:\n%s", text, brief(r.stderr))
		}
	}
}

func brief(s string) string {
	if len(s) > 2000 {
		return s[:1000] + " … " + s[len(s)-1000:]
	}
	return s
}

// background is a run of the program that has not ended yet.
type background struct {
	cmd    *exec.Cmd
	stdout *io.PipeReader
	ended  chan struct{} // closed once it has been waited for
}

// background starts the program; it is killed at the end of the test. line reads what it prints.
func (c cli) background(t *testing.T, args ...string) *background {
	t.Helper()
	r, w := io.Pipe()
	b := &background{c.command(t.Context(), nil, args...), r, make(chan struct{})}
	b.cmd.Stdout = w
	b.cmd.Stderr = os.Stderr
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = b.cmd.Wait()
		_ = w.Close()
		close(b.ended)
	}()
	t.Cleanup(func() {
		_ = r.Close()
		_ = b.cmd.Process.Kill()
		<-b.ended
	})
	return b
}

// line waits for the program's next line.
func (b *background) line(t *testing.T) string {
	t.Helper()
	line := make(chan string, 1)
	go func() {
		var text []byte
		for one := make([]byte, 1); ; {
			if _, err := b.stdout.Read(one); err != nil || one[0] == '\n' {
				line <- string(text)
				return
			}
			text = append(text, one[0])
		}
	}()
	select {
	case text := <-line:
		return text
	case <-time.After(patience):
		t.Fatal("the program printed nothing")
		return ""
	}
}

// kill is kill -9 of the program, and of nothing else.
func (b *background) kill(t *testing.T) {
	t.Helper()
	if err := b.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-b.ended
}

// name returns an id that no other VM has, and sees to it that the VM is gone when the test ends.
func (c cli) name(t *testing.T, hint string) string {
	t.Helper()
	var b [4]byte
	_, _ = rand.Read(b[:])
	id := "t-" + hint + "-" + hex.EncodeToString(b[:])
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if t.Failed() {
			for _, args := range [][]string{{"inspect", id}, {"logs", "--console", id}} {
				out, _ := c.command(ctx, nil, args...).CombinedOutput()
				t.Logf("%v: %s", args, brief(string(out)))
			}
		}
		_ = c.command(ctx, nil, "rm", "-f", id).Run()
		if c.exists(ctx, id) {
			t.Errorf("VM %s is still there after rm -f", id)
		}
	})
	return id
}

// vm creates and starts a VM of its own for the test.
func (c cli) vm(t *testing.T, hint string, args ...string) string {
	t.Helper()
	id := c.name(t, hint)
	c.ok(t, append([]string{"create", "--name", id}, args...)...)
	c.ok(t, "start", id)
	return id
}

// exec runs a command in a VM.
func (c cli) exec(t *testing.T, id string, command ...string) result {
	t.Helper()
	return c.run(t, append([]string{"exec", id, "--"}, command...)...)
}

// sh runs a shell command in a VM, wants success and returns its output.
func (c cli) sh(t *testing.T, id, script string) string {
	t.Helper()
	return c.ok(t, "exec", id, "--", "sh", "-c", script)
}

// inspect returns what the program says of a VM.
func (c cli) inspect(t *testing.T, id string) api.Sandbox {
	t.Helper()
	var s api.Sandbox
	decode(t, c.ok(t, "inspect", "--json", id), &s)
	return s
}

// list returns what ls says.
func (c cli) list(t *testing.T, args ...string) map[string]api.Sandbox {
	t.Helper()
	var all []api.Sandbox
	decode(t, c.ok(t, append([]string{"ls", "--json"}, args...)...), &all)
	byID := map[string]api.Sandbox{}
	for _, s := range all {
		byID[s.ID] = s
	}
	return byID
}

// engine is the engine of a name ("qemu", or "qemu 7.2.22" as inspect has it), as this host has it.
func (c cli) engine(t *testing.T, name string) api.Engine {
	t.Helper()
	var all []api.Engine
	decode(t, c.ok(t, "engine", "ls", "--json"), &all)
	for _, e := range all {
		if e.Path != "" && (name == e.Name || name == e.Name+" "+e.Version) {
			return e
		}
	}
	t.Fatalf("no engine %q among %+v", name, all)
	return api.Engine{}
}

func (c cli) exists(ctx context.Context, id string) bool {
	return c.command(ctx, nil, "inspect", "--json", id).Run() == nil
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in %s", err, brief(text))
	}
}

// eventually waits for a condition: the tests know no fixed delays.
func eventually(t *testing.T, limit time.Duration, what string, condition func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !condition() {
		if time.Since(begin) > limit {
			t.Fatalf("%s: not within %s", what, limit)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(begin)
}

// lives reports whether a process exists and is no zombie.
func lives(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}
