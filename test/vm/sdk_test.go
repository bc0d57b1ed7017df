package vm

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/need"
)

// TestVMGoSDK: a module outside the repository runs commands in a real VM by the SDK, and is killed in the middle: its private
// server, its directory and its VM go with it.
func TestVMGoSDK(t *testing.T) {
	c := program(t)
	bin := sdkUser(t)
	dir := t.TempDir()
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	id := c.name(t, "sdk")
	user := exec.CommandContext(ctx, bin, id)
	user.Env = append(os.Environ(), "SMOLVM_BIN="+c.bin, "TMPDIR="+tmp)
	var said bytes.Buffer
	user.Stderr = &said
	out, err := user.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make([]byte, 0, 1024)
	for one := make([]byte, 1); !bytes.Contains(lines, []byte("waiting\n")); {
		if _, err := io.ReadFull(out, one); err != nil {
			_ = user.Wait()
			t.Fatalf("%s%s", lines, said.String())
		}
		lines = append(lines, one[0])
	}
	if err := user.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = user.Wait()
	deadline := time.Now().Add(20 * time.Second)
	for {
		left, err := os.ReadDir(tmp)
		if err != nil {
			t.Fatal(err)
		}
		if gone := c.run(t, "inspect", id).code != 0; gone && len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the VM or the server's directory stays: %v", left)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// sdkUser is the program of a module outside the repository. In the VM lane, whose user has no Go, it is there already.
func sdkUser(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("SMOLVM_SDK_USER"); bin != "" {
		return bin
	}
	need.Tool(t, "go", "install Go")
	bin := filepath.Join(t.TempDir(), "sdk-user")
	build := exec.CommandContext(t.Context(), filepath.Join("..", "..", "script", "sdk-user"), bin)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// server starts one that is this test's.
func (c cli) server(t *testing.T) (socket string, kill func()) {
	t.Helper()
	dir := t.TempDir()
	socket = filepath.Join(dir, "s")
	cmd := exec.CommandContext(t.Context(), c.bin, "serve", "--socket", socket)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	return socket, kill
}

// overTCP runs 200 commands at once by a server that is reached as another host's is.
func overTCP(t *testing.T, c cli, id string) {
	t.Helper()
	b := c.background(t, "serve", "--listen", "127.0.0.1:0")
	var told struct{ URL string }
	decode(t, b.line(t), &told)
	token := strings.TrimSpace(c.ok(t, "token"))
	if _, err := smolvm.FromID(t.Context(), id, smolvm.WithHost(told.URL, token+"x")); !errdefs.Is(err, errdefs.Denied) {
		t.Errorf("a wrong token: %v", err)
	}
	vm, err := smolvm.FromID(t.Context(), id, smolvm.WithHost(told.URL, token))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = vm.Close() }()
	if err := vm.WriteFile(t.Context(), "/root/over-tcp", []byte("a file"), 0); err != nil {
		t.Error(err)
	}
	if b, err := vm.ReadFile(t.Context(), "/root/over-tcp"); err != nil || string(b) != "a file" {
		t.Errorf("%q, %v", b, err)
	}
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			res, err := vm.Run(t.Context(), "echo", strconv.Itoa(i))
			if err != nil || string(res.Stdout) != strconv.Itoa(i)+"\n" {
				t.Errorf("command %d of 200: %+v, %v", i, res, err)
			}
		})
	}
	all.Wait()
}

// TestVMServeCommands: a server that is killed leaves a command running, which the next one reattaches to; a client that goes has
// its command killed, with all that it started. A VM made anew under its old id is reached, and so is one whose supervisor was
// killed.
func TestVMServeCommands(t *testing.T) {
	c := program(t)
	id := c.name(t, "serve")
	c.ok(t, "create", "--name", id)
	c.ok(t, "start", id)
	socket, kill := c.server(t)
	vm, err := smolvm.FromID(t.Context(), id, smolvm.WithHost("unix://"+socket, ""))
	if err != nil {
		t.Fatal(err)
	}
	cmd := vm.Command(t.Context(), "sh", "-c", "echo begun; sleep 3; echo ended; exit 4")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill()
	if err := cmd.Wait(); !errdefs.Is(err, errdefs.Unavailable) {
		t.Errorf("a command whose server died: %v", err)
	}
	_ = vm.Close()
	socket, _ = c.server(t)
	if vm, err = smolvm.FromID(t.Context(), id, smolvm.WithHost("unix://"+socket, "")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = vm.Close() }()
	r := c.run(t, "attach", id, cmd.ExecID())
	r.prints(t, 4, "begun\nended\n")

	ctx, leave := context.WithCancel(t.Context())
	left := vm.Command(ctx, "sh", "-c", "setsid sleep 87654 & sleep 87654")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	leave()
	_ = left.Wait()
	for begun := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		if c.run(t, "exec", id, "pgrep", "-f", "sleep 8765[4]").code == 1 {
			break
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatal("what it started is left")
		}
	}

	again := func(what string) {
		t.Helper()
		if res, err := vm.Run(t.Context(), "true"); err != nil || !res.OK() {
			t.Errorf("%s: %+v, %v", what, res, err)
		}
	}
	again("the first")
	overTCP(t, c, id)
	c.ok(t, "rm", "-f", id)
	if _, err := vm.Run(t.Context(), "true"); !errdefs.Is(err, errdefs.NotFound) {
		t.Errorf("a VM that is gone: %v", err)
	}
	c.ok(t, "create", "--name", id)
	c.ok(t, "start", id)
	again("made anew")
	box, err := vm.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(box.SupervisorPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	if _, err := vm.Run(t.Context(), "true"); err == nil {
		t.Error("a VM without its supervisor ran a command")
	}
	c.ok(t, "start", id)
	again("started again")
}
