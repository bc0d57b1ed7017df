package smolvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// TestMain plays the private server where it is asked to.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "serve" {
		os.Exit(play(os.Args[3]))
	}
	os.Exit(m.Run())
}

// play answers as smolvm serve does, with its process's number as the output of each command.
func play(socket string) int {
	if os.Getenv("SMOLVM_TEST_BROKEN") != "" {
		fmt.Fprintln(os.Stderr, "no kernel here")
		return 1
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socket})
	if err != nil {
		return 1
	}
	answer := func(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/version", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, api.Version{Version: os.Getenv("SMOLVM_TEST_VERSION")})
	})
	mux.HandleFunc("GET /v1/sandboxes/web", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, api.Sandbox{ID: "web", State: api.StateRunning})
	})
	mux.HandleFunc("POST /v1/sandboxes/web/exec", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"stdout": []byte(fmt.Sprint(os.Getpid())), "duration_ms": 1.5})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		answer(w, map[string]any{"detail": "there is no such VM", "code": "not_found", "remedy": "smolvm ls -a"})
	})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	answer2 := json.NewEncoder(os.Stdout)
	_ = answer2.Encode(map[string]string{"socket": socket, "version": "v1"})
	_ = http.Serve(l, mux) //nolint:gosec // a test's
	return 0
}

func private1(t *testing.T) *Client {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("SMOLVM_TEST_VERSION", "v1")
	c, err := NewClient(WithBinary(os.Args[0]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(os.TempDir()); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
	return c
}

// TestPrivateServer: it starts with the first call, once; one that was killed is followed by another; its directory is ours alone
// and goes with it.
func TestPrivateServer(t *testing.T) {
	c := private1(t)
	vm, err := FromID(t.Context(), "web", WithClient(c))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	pids := map[string]bool{}
	run := func() {
		res, err := vm.Run(t.Context(), "true")
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		pids[string(res.Stdout)] = true
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(run)
	}
	wg.Wait()
	first := c.private.child
	if info, err := os.Stat(first.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	if len(pids) != 1 {
		t.Errorf("servers %v", pids)
	}
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-first.gone
	run()
	if len(pids) != 2 {
		t.Errorf("servers %v", pids)
	}
	if _, err := os.Stat(first.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead server's directory: %v", err)
	}
	if err := vm.Close(); err != nil {
		t.Error(err)
	}
	run() // the client is another's
}

// TestFailures: classes and remedies arrive.
func TestFailures(t *testing.T) {
	c := private1(t)
	_, err := FromID(t.Context(), "other", WithClient(c))
	e, is := errors.AsType[*errdefs.Error](err)
	if !is || e.Class != errdefs.NotFound || e.Remedy != "smolvm ls -a" || e.Error() != "there is no such VM" {
		t.Errorf("%v", err)
	}
	if _, err := FromID(t.Context(), "-", WithClient(c)); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := FromID(ctx, "web", WithClient(c)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	vm := &VM{c: c, id: "web", letGo: func() {}}
	if _, err := vm.Run(t.Context(), ""); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("%v", err)
	}
	if err := vm.Command(t.Context(), "x").Wait(); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("%v", err)
	}
	if err := vm.Command(t.Context(), "x").Start(); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("%v", err) // this server has no WebSockets
	}
	if err := vm.Upload(t.Context(), "/no/such/file", "/x"); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("%v", err)
	}
}

// TestBroken: a server that does not start says why; one of another age is refused; no program is told with what helps.
func TestBroken(t *testing.T) {
	t.Run("broken", func(t *testing.T) {
		t.Setenv("SMOLVM_TEST_BROKEN", "1")
		c := private1(t)
		if _, err := FromID(t.Context(), "web", WithClient(c)); !errdefs.Is(err, errdefs.Unavailable) || !strings.Contains(err.Error(), "no kernel here") {
			t.Errorf("%v", err)
		}
	})
	t.Run("another age", func(t *testing.T) {
		c := private1(t)
		t.Setenv("SMOLVM_TEST_VERSION", "")
		if _, err := FromID(t.Context(), "web", WithClient(c)); !errdefs.Is(err, errdefs.Unavailable) || errdefs.RemedyOf(err) == "" {
			t.Errorf("%v", err)
		}
	})
	t.Run("absent", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		t.Setenv("SMOLVM_BIN", "")
		t.Setenv("SMOLVM_HOST", "")
		if _, err := FromID(t.Context(), "web"); !errdefs.Is(err, errdefs.Host) || !strings.Contains(errdefs.RemedyOf(err), "SMOLVM_BIN") {
			t.Errorf("%v", err)
		}
	})
}

// TestHosts: a token goes nowhere in the clear.
func TestHosts(t *testing.T) {
	for host, class := range map[string]errdefs.Class{
		"http://example.com": errdefs.Denied, "http://10.0.0.1:80": errdefs.Denied, "http://127.0.0.1:8010": "", "https://example.com:8010": "", "http://[::1]:1": "",
		"unix:///run/s": "", "unix://run/s": errdefs.Invalid, "ftp://x": errdefs.Invalid, "x": errdefs.Invalid, "https://x/y": errdefs.Invalid,
	} {
		c, err := NewClient(WithHost(host, "t"))
		if errdefs.ClassOf(err) != class {
			t.Errorf("%s: %v", host, err)
		}
		if err == nil {
			_ = c.Close()
		}
	}
}
