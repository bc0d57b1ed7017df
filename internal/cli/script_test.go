package cli_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/cli"
)

func TestMain(m *testing.M) {
	if os.Getenv("CLI_TEST_CHILD") != "" {
		os.Exit(app().Main(context.Background(), os.Args[1:]))
	}
	testscript.Main(m, map[string]func(){
		"smolvm": func() { os.Exit(app().Main(context.Background(), os.Args[1:])) },
	})
}

func app() cli.App {
	checks := []api.Check{
		{Name: "engine qemu", Status: api.CheckOK, Detail: "/usr/bin/qemu 7.2.22"},
		{Name: "landlock", Status: api.CheckWarning, Detail: "not there", Remedy: "boot a newer kernel"},
	}
	if os.Getenv("SICK") != "" {
		checks = append(checks, api.Check{Name: "disk", Status: api.CheckFailure, Detail: "full", Remedy: "make room"})
	}
	return cli.App{
		Version: api.Version{Version: "v1.2.3", Commit: "abc", AgentDigest: "d1", Go: "go1.26", ProtocolMin: 1, ProtocolMax: 1},
		Stdin:   os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Open: func(o cli.OpenOptions) (cli.Service, error) {
			call("open %s boots=%v", o.Home, o.Boots)
			return cli.Service{VMs: double{}, Images: images{}, Pruner: pruner{}}, nil
		},
		Doctor: func(context.Context, cli.OpenOptions) ([]api.Check, error) { return checks, nil },
		Bench: func(context.Context, cli.OpenOptions, cli.BenchOptions) ([]api.Suite, error) {
			ok := os.Getenv("SLOW") == ""
			return []api.Suite{{Suite: "exec", Figures: []api.Figure{{Name: "ping", Value: 5.5, Unit: "x", Goal: "<= 7", OK: ok}, {Name: "told", Value: 3, Unit: "ms", OK: true}}}}, nil
		},
		Setenv:      os.Setenv,
		BenchSuites: [][2]string{{"exec", "latency of commands"}},
	}
}

// TestScripts: what needs no VM. Each file says what it is about.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", "atexit_sleep_ms=50") // a second per command otherwise
			e.Setenv("SMOLVM_CONFIG", "/dev/null")
			e.Setenv("CALLS", filepath.Join(e.WorkDir, "calls"))
			e.Setenv("GUEST", filepath.Join(e.WorkDir, "guest"))
			e.Setenv("SMOLVM_HOME", filepath.Join(e.WorkDir, "home"))
			return os.MkdirAll(filepath.Join(e.WorkDir, "guest", "root"), 0o755)
		},
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exitcode": exitcode},
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		RequireExplicitExec: true,
	})
}

// exitcode CODE COMMAND… runs a command and checks how it ends.
func exitcode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode CODE COMMAND [ARG...]")
	}
	got, err := 0, ts.Exec(args[1], args[2:]...)
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got, err = e.ExitCode(), nil
	}
	if want, _ := strconv.Atoi(args[0]); err != nil || got != want {
		ts.Fatalf("exit code %d (%v), want %s", got, err, args[0])
	}
}

// child starts the program with the double behind it.
func child(t *testing.T, args ...string) (*exec.Cmd, *bufio.Reader, string) {
	t.Helper()
	calls := filepath.Join(t.TempDir(), "calls")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "CLI_TEST_CHILD=1", "CALLS="+calls)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out), calls
}

func wantLine(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	if got, err := r.ReadString('\n'); err != nil || got != want+"\n" {
		t.Fatalf("it printed %q (%v), want %q", got, err, want)
	}
}

func TestSignals(t *testing.T) {
	tests := []struct {
		name    string
		command string
		send    []syscall.Signal
		code    int
	}{
		{"the command gets the first", "signal", []syscall.Signal{syscall.SIGINT}, 9},
		{"SIGTERM too", "signal", []syscall.Signal{syscall.SIGTERM}, 9},
		{"the second ends the command", "stubborn", []syscall.Signal{syscall.SIGINT, syscall.SIGINT}, 130},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd, out, calls := child(t, "run", "--name", "x1", "--", tt.command)
			wantLine(t, out, "up")
			for i, s := range tt.send {
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					wantLine(t, out, s.String())
				}
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			removed(t, calls, "x1")
		})
	}
}

// TestSignalWhileStarting: the first one ends a start, in order.
func TestSignalWhileStarting(t *testing.T) {
	cmd, _, calls := child(t, "run", "--name", "slowboot", "--", "cat")
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if b, _ := os.ReadFile(calls); contains(b, "start slowboot") {
			break
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatal("it did not start")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 143 {
		t.Errorf("exit code %d, want 143", code)
	}
	removed(t, calls, "slowboot")
}

// TestBrokenPipe: when nobody reads the output, the VM is removed before we end.
func TestBrokenPipe(t *testing.T) {
	calls := filepath.Join(t.TempDir(), "calls")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "run", "--name", "x2", "--", "flood")
	cmd.Env = append(os.Environ(), "CLI_TEST_CHILD=1", "CALLS="+calls)
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 141 {
		t.Errorf("it ended with %v, want exit code 141", cmd.ProcessState)
	}
	removed(t, calls, "x2")
}

func contains(b []byte, line string) bool {
	for l := range strings.SplitSeq(string(b), "\n") {
		if l == line {
			return true
		}
	}
	return false
}

func removed(t *testing.T, calls, id string) {
	t.Helper()
	b, err := os.ReadFile(calls)
	if want := "remove " + id + " force=" + strconv.FormatBool(true); err != nil || !contains(b, want) {
		t.Errorf("no %q among the calls (%v):\n%s", want, err, b)
	}
}
