package child

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test program plays the parent and the child as well.
const roleVar = "SMOLVM_CHILD_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "parent":
		os.Exit(parentRole())
	case "report":
		reportRole()
		os.Exit(0)
	case "sleep":
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func role(ctx context.Context, t *testing.T, name string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(Environ(), roleVar+"="+name)
	return cmd
}

func parentRole() int {
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe")
	cmd.Env = append(Environ(), roleVar+"=sleep")
	c, err := Start(cmd)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(c.PID())
	time.Sleep(time.Minute)
	return 0
}

func reportRole() {
	cwd, _ := os.Getwd()
	fmt.Printf("cwd=%s umask=%03o\n", cwd, syscall.Umask(0))
	fmt.Printf("env=%s\n", strings.Join(os.Environ(), " "))
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		fmt.Printf("fd%s=%s\n", e.Name(), to)
	}
}

func TestStartGivesNothingButTheMeant(t *testing.T) {
	t.Setenv("SECRET_OF_THE_CALLER", "hunter2")
	leak, err := unix.Open("/etc/hostname", unix.O_RDONLY, 0) // deliberately without O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(leak) }()
	before := unix.Umask(0o022)
	defer unix.Umask(before)
	var out strings.Builder
	cmd := role(t.Context(), t, "report")
	cmd.Stdout = &out
	c, err := Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cwd=/ umask=077", "LC_ALL=C.UTF-8"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	for _, never := range []string{"hunter2", "/etc/hostname"} {
		if strings.Contains(out.String(), never) {
			t.Errorf("%q was inherited:\n%s", never, out.String())
		}
	}
	if got := unix.Umask(0o022); got != 0o022 {
		t.Errorf("our own umask became %03o", got)
	}
	if c.State() == nil || !c.State().Success() {
		t.Errorf("State = %v", c.State())
	}
}

func TestChildDiesWithItsParent(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	parent := role(t.Context(), t, "parent")
	parent.Stdout = w
	p, err := Start(parent)
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	buf := make([]byte, 64)
	n, err := r.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		t.Fatalf("the parent said %q", buf[:n])
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	p.Kill()
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 5000); n != 1 {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		t.Fatalf("the grandchild outlived its parent (%v)", err)
	}
}

func TestStartFails(t *testing.T) {
	if _, err := Start(exec.CommandContext(t.Context(), "/nonexistent")); err == nil {
		t.Error("started a program that is not there")
	}
}

func TestSignalAfterTheEnd(t *testing.T) {
	c, err := Start(exec.CommandContext(t.Context(), "/bin/true"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("Signal = %v", err)
	}
	c.Kill()
}
