package vm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// TestVMLongHostileGuest: whatever a guest does to itself, the VM's other commands are answered, or its end is told truly.
func TestVMLongHostileGuest(t *testing.T) {
	c := program(t)
	id := c.vm(t, "hostile", "--memory", "512")
	for _, tt := range []struct {
		name string
		test func(t *testing.T, c cli, id string)
	}{
		{"a long line", longLine},
		{"many small lines", manyLines},
		{"bytes that are no text", noText},
		{"names with escapes", escapes},
		{"what cannot be executed", notExecutable},
		{"copies out", copiesOut},
		{"signals to process 1", signalsToInit},
		{"kill of everything", killEverything},
		{"out of memory", outOfMemory},
		{"fork bomb", forkBomb},
		{"panic", guestPanic},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.test(t, c, id)
			if t.Failed() {
				return
			}
			if got := c.sh(t, id, "echo alive"); got != "alive\n" {
				t.Errorf("afterwards it says %q", got)
			}
		})
	}
}

// counter counts bytes of one kind and others.
type counter struct {
	kind        byte
	same, other int
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n := bytes.Count(p, []byte{c.kind})
	c.same, c.other = c.same+n, c.other+len(p)-n
	return len(p), nil
}

// longLine: a line that does not end is held nowhere.
func longLine(t *testing.T, c cli, id string) {
	const size = 1 << 30
	supervisor := c.inspect(t, id).SupervisorPID
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := c.command(ctx, nil, "exec", id, "--", "head", "-c", itoa(size), "/dev/zero")
	got := counter{}
	cmd.Stdout = &got
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB in %s", size>>20, time.Since(begin))
	if got.same != size || got.other != 0 {
		t.Errorf("%d bytes came, and %d that were not sent; %d were sent", got.same, got.other, size)
	}
	for what, pid := range map[string]int{"supervisor": supervisor, "client": 0} {
		peak := 0
		if pid == 0 {
			peak = peakOf(t, cmd.ProcessState.SysUsage())
		} else {
			peak = highest(t, pid)
		}
		if peak > 200<<10 {
			t.Errorf("the %s took %d KiB at most", what, peak)
		}
	}
}

func manyLines(t *testing.T, c cli, id string) {
	want := strings.Repeat("small line\n", 100_000)
	r := c.exec(t, id, "sh", "-c", "yes 'small line' | head -n 100000")
	r.want(t, 0)
	if r.stdout != want {
		t.Errorf("%d bytes came, %d were sent", len(r.stdout), len(want))
	}
}

// noText: an exec's own streams are bytes, and go through as they are.
func noText(t *testing.T, c cli, id string) {
	const odd = "\xff\xfe\x00\x1b[31m\xc3\x28\r\n\x1b]0;title\x07"
	c.exec(t, id, "printf", `\377\376\000\033[31m\303\050\r\n\033]0;title\007`).prints(t, 0, odd)
	c.feed(t, strings.NewReader(odd), "exec", "-i", id, "--", "cat").prints(t, 0, odd)
}

// escapes: what a guest or a user names cannot speak to the terminal.
func escapes(t *testing.T, c cli, id string) {
	const evil = "evil\x1b]0;title\x07\x9b31m"
	c.exec(t, id, "sh", "-c", `mkdir -p /root/names && cd /root/names && ln -s /etc/passwd "$1"`, "sh", evil).want(t, 0)
	for _, args := range [][]string{
		{"exec", id, "--", evil},
		{"exec", "-w", "/" + evil, id, "--", "true"},
		{"exec", "-u", evil, id, "--", "true"},
		{"cp", id + ":/root/names/no" + evil, t.TempDir()},
		{"cp", id + ":/root/names", t.TempDir()},
		{"create", "--name", evil},
		{"create", "--image", evil},
		{"inspect", evil},
		{"start", evil},
		{"run", "--env-file", "/" + evil, "--", "true"},
		{"logs", evil},
		{evil},
	} {
		r := c.run(t, args...)
		if r.code == 0 || r.stderr == "" {
			t.Errorf("%q: exit code %d, stderr %q", args, r.code, r.stderr)
		}
		if raw(r.stdout + r.stderr) {
			t.Errorf("%q lets escapes through: %q", args, r.stderr)
		}
	}
}

// raw reports whether a text could speak to a terminal.
func raw(text string) bool {
	return strings.ContainsAny(text, "\x1b\x07\u009b") || strings.Contains(text, "\x9b")
}

func notExecutable(t *testing.T, c cli, id string) {
	c.sh(t, id, `cd /root && printf x >plain && mkdir -p dir && printf '#!/no/such\n' >script && printf '\177ELF' >elf && chmod +x script elf`)
	for name, code := range map[string]int{"plain": 126, "dir": 126, "elf": 126, "script": 127, "absent": 127} {
		r := c.exec(t, id, "/root/"+name)
		if r.want(t, code); !strings.Contains(r.stderr, "/root/"+name) {
			t.Errorf("%s: %s", name, r.stderr)
		}
	}
}

// copiesOut: what a directory in the guest holds cannot reach out of where it is copied to.
func copiesOut(t *testing.T, c cli, id string) {
	c.sh(t, id, `mkdir -p /root/tree/sub && cd /root/tree
		mknod block b 8 1; mknod char c 1 3; mkfifo pipe; ln -s /etc/passwd absolute; ln -s ../../../../etc/shadow up
		ln -s sub inside; echo x >ok; ln ok hard; chmod 6755 ok; echo x >"$(printf 'two\nlines')"; ln -s .. sub/climb`)
	dir := t.TempDir()
	r := c.run(t, "cp", id+":/root/tree", dir)
	r.want(t, 1)
	r.says(t, "left out 5 entries")
	want := map[string]fs.FileMode{
		"tree": fs.ModeDir | 0o755, "tree/sub": fs.ModeDir | 0o755, "tree/inside": fs.ModeSymlink | 0o777, "tree/ok": 0o755,
		"tree/hard": 0o755, "tree/two\nlines": 0o644, "tree/sub/climb": fs.ModeSymlink | 0o777,
	}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, name)
		if err != nil || rel == "." {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if mode, there := want[rel]; !there || info.Mode() != mode {
			t.Errorf("%q came out with mode %s", rel, info.Mode())
		}
		delete(want, rel)
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%v did not come out, %v", want, err)
	}
	// A single file that has no end is no file.
	c.run(t, "cp", id+":/dev/zero", dir).want(t, 2)
}

// signalsToInit: the agent survives what anybody in the guest can send it.
func signalsToInit(t *testing.T, c cli, id string) {
	got := c.sh(t, id, "for s in $(seq 1 64); do kill -$s 1 2>/dev/null; done; echo through")
	if got != "through\n" {
		t.Errorf("it printed %q", got)
	}
	// And its children do not inherit that.
	c.exec(t, id, "sh", "-c", "kill -HUP $$").want(t, 129)
	c.exec(t, id, "sh", "-c", "kill -TERM $$").want(t, 143)
}

func killEverything(t *testing.T, c cli, id string) {
	other := c.background(t, "exec", id, "--", "sh", "-c", "echo up; exec sleep 900")
	if got := other.line(t); got != "up" {
		t.Fatalf("the other command printed %q", got)
	}
	_ = c.exec(t, id, "sh", "-c", "kill -9 -1") // its shell may survive that, or not
	select {
	case <-other.ended:
		if code := other.cmd.ProcessState.ExitCode(); code != 137 {
			t.Errorf("the other command ended with %d", code)
		}
	case <-time.After(30 * time.Second):
		t.Error("the other command still runs")
	}
}

func outOfMemory(t *testing.T, c cli, id string) {
	hog := "a = []\nwhile True: a.append(b'x' * (16 << 20))"
	c.exec(t, id, "python3", "-c", hog).want(t, 137)
	r := c.exec(t, id, "sh", "-c", "head -c 2G /dev/zero >/dev/shm/x; rm /dev/shm/x; echo after")
	if r.code != 0 || r.stdout != "after\n" {
		t.Errorf("a full tmpfs: exit code %d, %s", r.code, r.stderr)
	}
}

// forkBomb: another command is answered within 10 seconds, and can end it.
func forkBomb(t *testing.T, c cli, id string) {
	c.exec(t, id, "bash", "-c", ":(){ :|:& };: 2>/dev/null").want(t, 0) // its own process ends; what it forked goes on
	const full = `for d in /sys/fs/cgroup/user/*/; do grep -q '^max [1-9]' $d/pids.events && echo full; done; true`
	eventually(t, time.Minute, "the bomb at its limit", func() bool {
		begin := time.Now()
		got := c.sh(t, id, full)
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("another command took %s", took)
		}
		return got == "full\n"
	})
	begin := time.Now()
	c.sh(t, id, `for d in /sys/fs/cgroup/user/*/; do grep -qx $$ $d/cgroup.procs || echo 1 >$d/cgroup.kill; done`)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("its end took %s", took)
	}
}

func guestPanic(t *testing.T, c cli, id string) {
	r := c.exec(t, id, "sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60")
	r.want(t, 125)
	r.says(t, "panicked", "smolvm logs --console "+id)
	s := c.inspect(t, id)
	if s.State != api.StateError || !strings.Contains(s.Reason, "kernel panicked: sysrq triggered crash") || s.SupervisorPID != 0 {
		t.Errorf("it is %s: %s", s.State, s.Reason)
	}
	c.ok(t, "start", id)
}

// TestVMLongManyNames: a directory of more entries than anybody has use for comes out, or is refused; nothing hangs, and what
// a client left half way is nobody's burden.
func TestVMLongManyNames(t *testing.T) {
	c := program(t)
	id := c.vm(t, "many")
	c.sh(t, id, `python3 -c "
import os
os.mkdir('/root/many'); os.chdir('/root/many')
for i in range(100): open('%d' % i, 'w').close()
for i in range(100, 3000): os.link('%d' % (i % 100), '%d' % i)"`)
	dir := t.TempDir()
	c.ok(t, "cp", id+":/root/many", dir)
	names, err := os.ReadDir(filepath.Join(dir, "many"))
	if err != nil || len(names) != 3000 {
		t.Errorf("%d names came out, %v", len(names), err)
	}
	r, w := io.Pipe()
	_ = r.CloseWithError(errors.New("no reader"))
	cmd := c.command(t.Context(), nil, "cp", id+":/root/many", "-")
	cmd.Stdout = w
	if cmd.Run() == nil {
		t.Error("a reader that goes away is no error")
	}
	c.exec(t, id, "true").want(t, 0)
}
