package process

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/need"
)

// actVar names what the test's program is to do with nothing but a gateway's system calls left.
const actVar = "SMOLVM_TEST_ACT"

func TestMain(m *testing.M) {
	if name := os.Getenv(actVar); name != "" {
		os.Exit(play(name))
	}
	os.Exit(m.Run())
}

// play prints how it went; what kills it prints nothing.
func play(name string) int {
	act := acts()[name]
	before := make(chan error, 1) // on a thread that was there before
	threads := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		<-threads
		before <- act(os.Args[1])
	}()
	time.Sleep(20 * time.Millisecond)
	if _, err := restrict(); err != nil {
		fmt.Println("no filter:", err)
		return 0
	}
	close(threads)
	if err := <-before; err != nil {
		fmt.Println(err)
		return 0
	}
	fmt.Println("done")
	return 0
}

func errnoOf(_, _ uintptr, errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

func socket(domain, kind int) error {
	fd, err := unix.Socket(domain, kind, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

// acts are what is tried. The argument is a directory where everything may be written.
func acts() map[string]func(dir string) error {
	write := func(flag int) func(string) error {
		return func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "there"), flag, 0o600)
			if err == nil {
				_ = f.Close()
			}
			return err
		}
	}
	return map[string]func(string) error{
		"exec":       func(string) error { return unix.Exec("/bin/true", []string{"true"}, nil) },
		"ptrace":     func(string) error { return errnoOf(unix.RawSyscall(unix.SYS_PTRACE, unix.PTRACE_TRACEME, 0, 0)) },
		"mount":      func(dir string) error { return unix.Mount("none", dir, "tmpfs", 0, "") },
		"unshare":    func(string) error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"bpf":        func(string) error { return errnoOf(unix.RawSyscall(unix.SYS_BPF, 0, 0, 0)) },
		"io_uring":   func(string) error { return errnoOf(unix.RawSyscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)) },
		"write":      write(os.O_WRONLY),
		"read-write": write(os.O_RDWR),
		"append":     write(os.O_WRONLY | os.O_APPEND),
		"create":     func(dir string) error { return os.WriteFile(filepath.Join(dir, "new"), nil, 0o600) },
		"truncate":   func(dir string) error { return os.Truncate(filepath.Join(dir, "there"), 0) },
		"mkdir":      func(dir string) error { return os.Mkdir(filepath.Join(dir, "d"), 0o700) },
		"unlink":     func(dir string) error { return unix.Unlink(filepath.Join(dir, "there")) },
		"rename":     func(dir string) error { return os.Rename(filepath.Join(dir, "there"), filepath.Join(dir, "else")) },
		"chmod":      func(dir string) error { return os.Chmod(filepath.Join(dir, "there"), 0o777) }, //nolint:gosec // it must not work
		"symlink":    func(dir string) error { return os.Symlink("/etc", filepath.Join(dir, "l")) },
		"fork": func(string) error {
			return errnoOf(unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0))
		},
		"kill":   func(string) error { return unix.Kill(os.Getppid(), 0) },
		"tgkill": func(string) error { return unix.Tgkill(os.Getppid(), os.Getppid(), 0) },
		"packet": func(string) error { return socket(unix.AF_PACKET, unix.SOCK_RAW) },
		"vsock":  func(string) error { return socket(unix.AF_VSOCK, unix.SOCK_STREAM) },
		"unix":   func(string) error { return socket(unix.AF_UNIX, unix.SOCK_STREAM) },
		"listen": func(string) error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				return fmt.Errorf("even the socket: %w", err)
			}
			return unix.Listen(fd, 1)
		},
		"code": func(string) error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			return err
		},
		"make code": func(string) error {
			b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if err != nil {
				return fmt.Errorf("even memory: %w", err)
			}
			return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
		},
		"raise limits": func(string) error {
			return unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
		},
		"keyring": func(string) error { return errnoOf(unix.RawSyscall(unix.SYS_KEYCTL, 0, 0, 0)) },
		"normal":  normal,
	}
}

// normal is what a gateway and Go's runtime do all day.
func normal(dir string) error {
	if b, err := os.ReadFile(filepath.Join(dir, "there")); err != nil || string(b) != "there" {
		return fmt.Errorf("read a file: %q, %w", b, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) == 0 {
		return fmt.Errorf("read a directory: %w", err)
	}
	if _, err := net.InterfaceAddrs(); err != nil {
		return fmt.Errorf("the host's addresses: %w", err)
	}
	at, err := os.ReadFile(filepath.Join(dir, "tcp"))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	failed := make(chan error, 64)
	for range 12 { // many threads, much garbage, timers, preemption
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) //nolint:forbidigo // a test's
			defer cancel()
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", string(at))
			if err != nil {
				failed <- err
				return
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err = c.Write(make([]byte, 100)); err == nil {
				_, err = io.ReadFull(c, make([]byte, 100))
			}
			if err != nil {
				failed <- err
			}
			n := 0
			for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); n++ {
				_ = make([]byte, 1<<16)
			}
			runtime.GC()
		})
	}
	wg.Wait()
	if _, err := (&net.Resolver{PreferGo: true}).LookupHost(context.Background(), "localhost"); err != nil { //nolint:forbidigo // a test's
		return fmt.Errorf("a name: %w", err)
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("the limits: %w", err)
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// TestCalls: with what is left, a gateway works, and what it does not need fails or ends it.
func TestCalls(t *testing.T) {
	dir := t.TempDir()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	for name, text := range map[string]string{"there": "there", "tcp": l.Addr().String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	killed := []string{"exec", "ptrace", "mount", "unshare", "bpf", "io_uring", "keyring"}
	for name := range acts() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", dir)
			cmd.Env = append(os.Environ(), actVar+"="+name)
			out, err := cmd.CombinedOutput()
			said := strings.TrimSpace(string(out))
			if strings.HasPrefix(said, "no filter") {
				need.Missing(t, said)
			}
			status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
			switch {
			case name == "normal":
				if said != "done" || err != nil {
					t.Errorf("%s (%v)", said, err)
				}
			case slices.Contains(killed, name):
				if !status.Signaled() || status.Signal() != syscall.SIGSYS {
					t.Errorf("it lives on: %s (%v)", said, err)
				}
			case !strings.HasSuffix(said, syscall.EPERM.Error()) || err != nil:
				t.Errorf("%s (%v), want a refusal", said, err)
			}
		})
	}
}

// TestCallsExist: the list has a meaning on each machine that we build for, and nothing is named twice.
func TestCallsExist(t *testing.T) {
	for _, machine := range []*arch.Info{arch.X86_64, arch.AARCH64} {
		all := calls(machine)
		names := slices.Concat(all.Names, hostile(), []string{"clone3"})
		once := len(names)
		for _, c := range all.NamesWithCondtions {
			names = append(names, c.Name)
		}
		for _, name := range names {
			if _, ok := machine.SyscallNames[name]; !ok {
				t.Errorf("%s has no call %q", machine.Name, name)
			}
		}
		only := slices.Sorted(slices.Values(names[:once]))
		if len(slices.Compact(only)) != once {
			t.Errorf("%s: a call is named twice", machine.Name)
		}
	}
}
