package ssh

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIItpPbk9jOQqNZ/u/U25yBS+1NlRuP8AtGWCQ2pubbBC"

func testFiles(t *testing.T, home string) files {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(home, "vms", "web"), 0o700); err != nil {
		t.Fatal(err)
	}
	return files{home, "/opt/smol vm/bin/smolvm's"}
}

func needClient(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("there is no OpenSSH client; script/bootstrap --dev installs it")
	}
}

// TestConfig: OpenSSH's client understands it as it is meant, also with odd paths.
func TestConfig(t *testing.T) {
	needClient(t)
	home := filepath.Join(t.TempDir(), "100% it's here")
	f := testFiles(t, home)
	path, err := f.saveConfig("web")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "ssh", "-G", "-F", path, "smolvm-web").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[name] = value
	}
	percent := strings.ReplaceAll(home, "%", "%%")
	for name, want := range map[string]string{
		"user": "root", "hostname": "smolvm-web", "hostkeyalias": "smolvm-web", "stricthostkeychecking": "true", "identitiesonly": "yes",
		"forwardagent": "no", "globalknownhostsfile": "/dev/null", "identityfile": percent + "/ssh/id_ed25519",
		"proxycommand": `'/opt/smol vm/bin/smolvm'\''s' --home '` + strings.ReplaceAll(percent, "'", `'\''`) + `' ssh-proxy web`,
	} {
		if got[name] != want && got[name] != strings.ReplaceAll(want, "%%", "%") {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if _, err := (files{"/a\"b", "/p"}).config("web"); err == nil {
		t.Error("a path that OpenSSH cannot read is taken")
	}
}

// TestKey: many at once make one key, which only its user can read.
func TestKey(t *testing.T) {
	needClient(t)
	f := testFiles(t, t.TempDir())
	lines := make([]string, 8)
	var all sync.WaitGroup
	for i := range lines {
		all.Go(func() {
			var err error
			if lines[i], err = f.publicKey(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, line := range lines {
		if line != lines[0] || !strings.HasPrefix(line, "ssh-ed25519 ") || !strings.HasSuffix(line, " smolvm") {
			t.Errorf("key %q, another one got %q", line, lines[0])
		}
	}
	if st, err := os.Stat(f.key()); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	entries, err := os.ReadDir(f.dir())
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := os.WriteFile(f.key()+".pub", []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.publicKey(t.Context()); err == nil {
		t.Error("nonsense is a key")
	}
}

func TestHostKeys(t *testing.T) {
	f := testFiles(t, t.TempDir())
	hostile := "hello\n" + hostKey + " root@web\n* " + hostKey + "\n" +
		"ssh-rsa " + strings.Fields(hostKey)[1] + "\n@cert-authority AAAA\nssh-ed25519 \x1b[2J\nssh-ed25519 AAAA\n"
	if err := f.saveHostKeys("web", hostile); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(f.knownHosts("web")); string(b) != "smolvm-web "+hostKey+"\n" {
		t.Errorf("%q, %v", b, err)
	}
	if err := f.saveHostKeys("web", "none\n"); err == nil {
		t.Error("a guest without keys is known")
	}
}

func FuzzPublicLine(f *testing.F) {
	f.Add(hostKey)
	f.Add("ssh-ed25519 AAAA x")
	f.Add("a AAAAAWE=")
	f.Fuzz(func(t *testing.T, text string) {
		line, ok := publicLine(text)
		if again, same := publicLine(line); ok && (!same || again != line || strings.ContainsAny(line, "\n\r\x1b\"*,") || strings.Count(line, " ") != 1) {
			t.Errorf("%q becomes %q, then %q", text, line, again)
		}
	})
}

// guest is one whose commands are answered by a function.
type guest func(req api.ExecRequest, stdout, stderr io.Writer) (api.ExecResult, error)

func (g guest) Exec(_ context.Context, req api.ExecRequest, s lifecycle.ExecIO) (api.ExecResult, error) {
	return g(req, s.Stdout, s.Stderr)
}
func (guest) Close() error { return nil }

func TestPrepare(t *testing.T) {
	answer := func(req api.ExecRequest, stdout, stderr io.Writer) (api.ExecResult, error) {
		if len(req.Argv) > 0 {
			_, _ = io.WriteString(stdout, "A=1\x00")
			return api.ExecResult{}, nil
		}
		if req.Env["SMOLVM_SSH_KEY"] != "the key" || !strings.HasSuffix(req.Env["SMOLVM_SSH_SNIPPET"], "\nSetEnv \"A=1\"") || req.User != "root" {
			t.Errorf("%+v", req)
		}
		_, _ = io.WriteString(stdout, strings.Repeat("x", 2*maxOutput))
		return api.ExecResult{}, nil
	}
	if out, err := prepare(t.Context(), guest(answer), "the key"); err != nil || len(out) != maxOutput {
		t.Errorf("%d, %v", len(out), err)
	}
	failing := func(_ api.ExecRequest, _, stderr io.Writer) (api.ExecResult, error) {
		_, _ = io.WriteString(stderr, "there is \x1b[31mno sshd\n")
		return api.ExecResult{ExitCode: 127}, nil
	}
	if _, err := prepare(t.Context(), guest(failing), "k"); err == nil || !strings.Contains(err.Error(), `no sshd`) || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("%v", err)
	}
	gone := errors.New("gone")
	if _, err := prepare(t.Context(), guest(func(api.ExecRequest, io.Writer, io.Writer) (api.ExecResult, error) {
		return api.ExecResult{}, gone
	}), "k"); !errors.Is(err, gone) {
		t.Errorf("%v", err)
	}
}

// TestSetupIsShell: the script is one, for the shell that guests have.
func TestSetupIsShell(t *testing.T) {
	if out, err := exec.CommandContext(t.Context(), "sh", "-n", "-c", setup).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
