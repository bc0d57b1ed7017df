package vm

import (
	"bytes"
	"crypto/rand"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// TestVMCoreExec: one VM, and every way to run a command in it.
func TestVMCoreExec(t *testing.T) {
	c := program(t)
	id := c.vm(t, "exec", "-e", "FROM_VM=1")
	tests := []struct {
		name   string
		flags  []string
		args   []string
		code   int
		stdout string
		stderr []string
	}{
		{name: "streams apart", args: []string{"sh", "-c", "echo out; echo err >&2; exit 3"}, code: 3, stdout: "out\n", stderr: []string{"err\n"}},
		{name: "not found", args: []string{"no-such-command"}, code: 127, stderr: []string{"no-such-command"}},
		{name: "not executable", args: []string{"/etc/passwd"}, code: 126, stderr: []string{"/etc/passwd"}},
		{name: "own signal", args: []string{"sh", "-c", "kill -TERM $$"}, code: 143},
		{name: "timeout", flags: []string{"--timeout", "2s"}, args: []string{"sh", "-c", "echo kept; sleep 600"}, code: 124, stdout: "kept\n"},
		{name: "environment", flags: []string{"-e", "A=x y", "-e", "B="}, args: []string{"sh", "-c", `echo "$FROM_VM/$A/$B/${B-unset}/${C-unset}"`}, stdout: "1/x y///unset\n"},
		{name: "directory", flags: []string{"-w", "/var/lib"}, args: []string{"pwd"}, stdout: "/var/lib\n"},
		{name: "home by default", args: []string{"sh", "-c", "pwd; whoami"}, stdout: "/root\nroot\n"},
		{name: "user", flags: []string{"-u", "nobody"}, args: []string{"sh", "-c", "id -un; id -G"}, stdout: "nobody\n65534\n"},
		{name: "numeric user", flags: []string{"-u", "1234:5678"}, args: []string{"sh", "-c", "id -u; id -g"}, stdout: "1234\n5678\n"},
		{name: "no stdin", args: []string{"wc", "-c"}, stdout: "0\n"},
		{name: "odd arguments", args: []string{"printf", "<%s>", "", "a b", "'\"$x\\", "é\n"}, stdout: "<><a b><'\"$x\\><é\n>"},
		{name: "pid 1", args: []string{"sh", "-c", "readlink /proc/1/exe >/dev/null && tr -d '\\0' </proc/1/comm"}, stdout: "init\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"exec"}, tt.flags...)
			r := c.run(t, append(append(args, id, "--"), tt.args...)...)
			r.prints(t, tt.code, tt.stdout)
			r.says(t, tt.stderr...)
		})
	}
	t.Run("binary pipe", func(t *testing.T) { binaryPipe(t, c, id) })
	t.Run("long script", func(t *testing.T) { longScript(t, c, id) })
	t.Run("background child", func(t *testing.T) { backgroundChild(t, c, id) })
	t.Run("timeout kills all", func(t *testing.T) { timeoutKillsAll(t, c, id) })
	t.Run("kill of exec", func(t *testing.T) { killExec(t, c, id) })
	t.Run("interrupt", func(t *testing.T) { interruptExec(t, c, id) })
	t.Run("at once", func(t *testing.T) { execAtOnce(t, c, id) })
	t.Run("no VM", func(t *testing.T) {
		r := c.exec(t, "t-nobody", "true")
		r.want(t, 125)
		r.says(t, "t-nobody")
	})
	if s := c.inspect(t, id); s.State != api.StateRunning {
		t.Errorf("after all this the VM is %s: %s", s.State, s.Reason)
	}
}

func binaryPipe(t *testing.T, c cli, id string) {
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	r := c.feed(t, bytes.NewReader(data), "exec", "-i", id, "--", "cat")
	r.want(t, 0)
	if r.stdout != string(data) {
		t.Errorf("1 MiB of random bytes came back as %d other bytes", len(r.stdout))
	}
}

// longScript: agents send whole files as heredocs, more than an argument can hold.
func longScript(t *testing.T, c cli, id string) {
	line := strings.Repeat("0123456789abcdef", 4)[:63] + "\n"
	script := "cat >/tmp/big <<'END'\n" + strings.Repeat(line, 1<<14) + "END\nwc -c </tmp/big\nexit 5\n"
	file := t.TempDir() + "/script"
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	c.feed(t, strings.NewReader(script), "exec", "-i", id, "--", "sh").prints(t, 5, "1048576\n")
	c.run(t, "exec", "--script", file, id).prints(t, 5, "1048576\n")
}

// backgroundChild: a command ends when its own process ends; what it left in the background neither holds the call nor dies.
func backgroundChild(t *testing.T, c cli, id string) {
	tests := []struct{ name, script string }{
		{"holding the streams", "sleep 991 & echo started"},
		{"redirected", "sleep 992 >/dev/null 2>&1 </dev/null & echo started"},
		{"own session", "setsid sleep 993 & echo started"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			begin := time.Now()
			c.exec(t, id, "sh", "-c", tt.script).prints(t, 0, "started\n")
			if took := time.Since(begin); took > time.Minute {
				t.Errorf("the call took %s", took)
			}
		})
	}
	if got := c.sh(t, id, "pgrep -c -f '^sleep 99[123]'"); got != "3\n" {
		t.Errorf("%q of 3 background processes live", got)
	}
	c.sh(t, id, "pkill -f '^sleep 99[123]'")
}

// timeoutKillsAll: whatever the command forked, in whatever session, goes with it.
func timeoutKillsAll(t *testing.T, c cli, id string) {
	script := "sleep 994 & setsid sleep 995 & (trap '' TERM; sleep 996) & echo kept; sleep 997"
	c.run(t, "exec", "--timeout", "3s", id, "--", "sh", "-c", script).prints(t, 124, "kept\n")
	eventually(t, 10*time.Second, "every process of the command dead", func() bool {
		return c.exec(t, id, "pgrep", "-f", "^sleep 99[4567]").code == 1
	})
}

// killExec: kill -9 of the client ends its command and leaves the VM alone.
func killExec(t *testing.T, c cli, id string) {
	b := c.background(t, "exec", id, "--", "sh", "-c", "echo up; exec sleep 998")
	if got := b.line(t); got != "up" {
		t.Fatalf("the command printed %q", got)
	}
	c.exec(t, id, "pgrep", "-f", "^sleep 998").want(t, 0)
	b.kill(t)
	eventually(t, 10*time.Second, "the command ended", func() bool {
		return c.exec(t, id, "pgrep", "-f", "^sleep 998").code == 1
	})
}

func interruptExec(t *testing.T, c cli, id string) {
	b := c.background(t, "exec", id, "--", "sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done")
	if got := b.line(t); got != "up" {
		t.Fatalf("the command printed %q", got)
	}
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-b.ended
	if code := b.cmd.ProcessState.ExitCode(); code != 9 {
		t.Errorf("exit code %d, want 9", code)
	}
}

// execAtOnce: commands wait for no lock and not for each other.
func execAtOnce(t *testing.T, c cli, id string) {
	first := c.background(t, "exec", id, "--", "sh", "-c", "echo up; until [ -e /tmp/go ]; do sleep 0.1; done; echo through")
	if got := first.line(t); got != "up" {
		t.Fatalf("the first command printed %q", got)
	}
	c.sh(t, id, "touch /tmp/go")
	if got := first.line(t); got != "through" {
		t.Errorf("the first command printed %q", got)
	}
}

// TestVMCopy: files and directories both ways.
func TestVMCopy(t *testing.T) {
	c := program(t)
	id := c.vm(t, "copy")
	dir := t.TempDir()
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	write(t, dir+"/tree/sub/one", data, 0o755)
	write(t, dir+"/tree/two", []byte("two"), 0o640)
	if err := os.Symlink("sub/one", dir+"/tree/link"); err != nil {
		t.Fatal(err)
	}

	c.ok(t, "cp", dir+"/tree/sub/one", id+":/root/file")
	c.ok(t, "cp", id+":/root/file", dir+"/back")
	same(t, dir+"/back", data)

	c.ok(t, "cp", dir+"/tree", id+":/root/")
	if got := c.sh(t, id, "cd /root/tree && stat -c %a sub/one two && readlink link && cat two"); got != "755\n640\nsub/one\ntwo" {
		t.Errorf("in the guest: %q", got)
	}
	c.ok(t, "cp", id+":/root/tree", dir+"/out")
	for _, name := range []string{"/out/sub/one", "/out/tree/sub/one"} {
		if _, err := os.Stat(dir + name); err == nil {
			same(t, dir+name, data)
			return
		}
	}
	t.Error("the directory did not come back")
}

func write(t *testing.T, name string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(name[:strings.LastIndexByte(name, '/')], 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes that differ from the %d sent", name, len(got), len(want))
	}
}
