package nsinit_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/need"
	"github.com/smolvm/smolvm/internal/sys/launch"
	"github.com/smolvm/smolvm/internal/sys/nsinit"
)

// TestMain lets the test binary be the init of its namespaces, as the program is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == nsinit.Command {
		os.Exit(nsinit.Main())
	}
	os.Exit(m.Run())
}

// unshare returns a usable unshare(1), or ends the test.
func unshare(t *testing.T) string {
	t.Helper()
	if !launch.IsRoot() {
		need.Tool(t, "newuidmap", "apt-get install uidmap")
	}
	return need.Tool(t, "unshare", "apt-get install util-linux")
}

func spec(t *testing.T, argv ...string) nsinit.Spec {
	t.Helper()
	return nsinit.Spec{
		Unshare: unshare(t), UserNamespace: !launch.IsRoot(), TmpfsBytes: 16 << 20,
		Argv: argv, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
	}
}

func TestRunIsAloneAndLeavesNothing(t *testing.T) {
	s := spec(t, "/bin/sh", "-c", `cat hello; touch /tmp/nsinit-left; echo $PPID; test $(ls -d /proc/[0-9]* | wc -l) -lt 6 && echo alone; id -u; ls /proc/self/fd`)
	s.Files = map[string][]byte{"hello": []byte("from outside\n")}
	var out, errs bytes.Buffer
	if err := nsinit.Run(t.Context(), s, &out, &errs); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	// Its parent is the init; besides them only a subshell, ls and wc run; it is root; only the three standard descriptors and ls's own.
	want := "from outside\n1\nalone\n0\n0\n1\n2\n3\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if _, err := os.Lstat("/tmp/nsinit-left"); err == nil {
		t.Error("a file in its /tmp is in ours")
	}
}

func TestRunTellsTheExitStatus(t *testing.T) {
	for _, c := range []struct {
		name string
		argv []string
		code int
	}{
		{"status", []string{"/bin/sh", "-c", "exit 7"}, 7},
		{"signal", []string{"/bin/sh", "-c", "kill -9 $$"}, 125},
		{"missing", []string{"/nonexistent"}, 125},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			err := nsinit.Run(t.Context(), spec(t, c.argv...), &out, &errs)
			if code, ok := nsinit.ExitCode(err); !ok || code != c.code {
				t.Errorf("got %v (%s), want status %d", err, errs.String(), c.code)
			}
		})
	}
}

// TestRunEndsWithUnshare: where namespaces are refused, unshare of util-linux 2.41 leaves a helper that never ends and
// holds its streams.
func TestRunEndsWithUnshare(t *testing.T) {
	stand := filepath.Join(t.TempDir(), "unshare")
	if err := os.WriteFile(stand, []byte("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nsleep 1000 &\nexit 1\n"), 0o700); err != nil { //nolint:gosec // it must run
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	var out, errs bytes.Buffer
	go func() {
		ended <- nsinit.Run(t.Context(), nsinit.Spec{Unshare: stand, TmpfsBytes: 1 << 20}, &out, &errs)
	}()
	select {
	case err := <-ended:
		if code, ok := nsinit.ExitCode(err); !ok || code != 1 || !strings.Contains(errs.String(), "not permitted") {
			t.Errorf("got %v: %s", err, errs.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for what unshare left")
	}
}

func TestDirectoryIsEmptiedFromInside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "scratch")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := spec(t, "/bin/sh", "-c", "mkdir -p a/b; touch a/b/c; chown -R 1000:1000 a; chmod 700 a; df /tmp >/dev/null")
	s.TmpfsBytes, s.TmpDir = 0, dir
	var out, errs bytes.Buffer
	if err := nsinit.Run(t.Context(), s, &out, &errs); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if err := nsinit.Clean(t.Context(), s.Unshare, s.UserNamespace, dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Error("the directory is still there")
	}
}

func TestMainRefusesToRunElsewhere(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), self, nsinit.Command).CombinedOutput()
	if code, ok := nsinit.ExitCode(err); !ok || code != 2 || !strings.Contains(string(out), "for smolvm itself") {
		t.Errorf("got %v: %s", err, out)
	}
}
