package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestVMSSH: OpenSSH's own client reaches a guest through the link, knows it, and finds what commands find.
func TestVMSSH(t *testing.T) {
	c := program(t)
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("there is no OpenSSH client; script/bootstrap --dev installs it")
	}
	id := c.vm(t, "ssh", "--net", "none", "-e", `GREETING=say "hi" to $HOME \n`)
	// Many at once, on the first use, when nothing is there.
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			r := c.run(t, "ssh", id, "--", fmt.Sprintf(`echo "$GREETING"; id -un; exit %d`, i+3))
			if want := "say \"hi\" to $HOME \\n\nroot\n"; r.code != i+3 || r.stdout != want {
				t.Errorf("%d: exit code %d, %q, %q", i, r.code, r.stdout, r.stderr)
			}
		})
	}
	all.Wait()
	if got := c.sh(t, id, "grep -c smolvm /root/.ssh/authorized_keys; stat -c %a /root/.ssh/authorized_keys /etc/ssh/sshd_config.d/smolvm.conf"); got != "1\n600\n600\n" {
		t.Errorf("in the guest: %q", got)
	}
	config := filepath.Join(t.TempDir(), "config")
	write(t, config, []byte(c.ok(t, "ssh-config", id)), 0o600)
	ssh := func(stdin string, name string, args ...string) (string, error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, append([]string{"-F", config}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	host := "smolvm-" + id
	t.Run("binary", func(t *testing.T) {
		data := strings.Repeat("\x00\xff\r\n~.\x03", 100_000)
		if out, err := ssh(data, "ssh", host, "cat"); err != nil || out != data {
			t.Errorf("%d of %d bytes, %v", len(out), len(data), err)
		}
	})
	t.Run("scp", func(t *testing.T) {
		from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
		write(t, from, []byte("copied"), 0o600)
		if out, err := ssh("", "scp", "-q", from, host+":/root/copy"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if out, err := ssh("", "scp", "-q", host+":/root/copy", to); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		same(t, to, []byte("copied"))
	})
	t.Run("terminal", func(t *testing.T) {
		if out, err := ssh("", "ssh", "-tt", host, "tty"); err != nil || !strings.HasPrefix(out, "/dev/pts/") {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("background", func(t *testing.T) {
		if out, err := ssh("", "ssh", host, "nohup sleep 1234 >/dev/null 2>&1 & echo on"); err != nil || out != "on\n" {
			t.Errorf("%q, %v", out, err)
		}
		if got := c.sh(t, id, "pgrep -fc '^sleep 1234'"); got != "1\n" {
			t.Errorf("%q live on", got)
		}
	})
	service := func(t *testing.T) {
		const banner = "exec 3<>/dev/tcp/127.0.0.1/22; read -r -t 20 line <&3; echo ${line:0:7}"
		eventually(t, patience, "the guest's port 22 answers", func() bool {
			return c.exec(t, id, "bash", "-c", banner).stdout == "SSH-2.0\n"
		})
	}
	t.Run("service", service)
	before := knownHosts(t, c, id)
	c.ok(t, "stop", id)
	c.run(t, "ssh", id, "--", "true").says(t, "smolvm start "+id)
	c.ok(t, "start", id)
	t.Run("service after a restart", service) // before any connection
	t.Run("restart", func(t *testing.T) {
		if out, err := ssh("", "ssh", host, "echo $GREETING"); err != nil || !strings.HasPrefix(out, "say") {
			t.Errorf("%q, %v", out, err)
		}
		if after := knownHosts(t, c, id); after != before {
			t.Errorf("the guest was %s and is %s", before, after)
		}
	})
	t.Run("stranger", func(t *testing.T) { stranger(t, config, host, before) })
}

func knownHosts(t *testing.T, c cli, id string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.inspect(t, id).Dir, "known_hosts"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// stranger shows the client another key than the guest's: it does not go on.
func stranger(t *testing.T, config, host, known string) {
	t.Helper()
	other := filepath.Join(t.TempDir(), "key")
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	public, err := os.ReadFile(other + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(known, " ")
	write(t, other+".known", []byte(name+" "+string(public)), 0o600)
	for what, file := range map[string]string{"another key": other + ".known", "no key": "/dev/null"} {
		cmd := exec.CommandContext(t.Context(), "ssh", "-F", config, "-o", "UserKnownHostsFile="+file, host, "true")
		out, err := cmd.CombinedOutput()
		if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 255 || !strings.Contains(string(out), "Host key verification failed") {
			t.Errorf("%s: %v: %s", what, err, out)
		}
	}
}
