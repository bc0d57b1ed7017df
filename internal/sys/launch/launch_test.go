package launch

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"github.com/smolvm/smolvm/internal/sys/child"
)

// probeCommand has the test program look at what is left to it, as the program that was launched.
const probeCommand = "probe"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case Command:
			os.Exit(Main())
		case probeCommand:
			os.Exit(probe(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// probe prints a line per thing that it can do.
func probe(paths []string) int {
	for _, p := range paths {
		if f, err := os.Open(p); err == nil { //nolint:gosec // a test's own
			_ = f.Close()
			fmt.Println("reads", p)
		}
		if err := os.WriteFile(filepath.Join(p, "x"), nil, 0o600); err == nil {
			fmt.Println("writes", p)
		}
	}
	if cards, err := net.Interfaces(); err == nil {
		for _, c := range cards {
			fmt.Println("card", c.Name)
		}
	}
	if err := os.WriteFile("/dev/null", []byte("x"), 0); err == nil {
		fmt.Println("writes /dev/null")
	}
	var lc net.ListenConfig
	if l, err := lc.Listen(context.Background(), "unix", "made"); err == nil {
		fmt.Println("listens")
		_ = l.Close()
	}
	inherited := os.NewFile(FirstFile, "inherited")
	if b := make([]byte, 16); inherited != nil {
		if n, err := inherited.Read(b); err == nil {
			fmt.Println("inherits", string(b[:n]))
		}
	}
	fmt.Println("uid", os.Getuid(), "gid", os.Getgid())
	groups, _ := os.Getgroups()
	fmt.Println("groups", groups)
	var core syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_CORE, &core)
	fmt.Println("core", core.Max)
	return 0
}

// launched runs the probe confined and returns what it can do.
func launched(t *testing.T, p Plan, paths ...string) ([]string, Report) {
	t.Helper()
	var out bytes.Buffer
	p.Args = append([]string{probeCommand}, paths...)
	l, err := Prepare(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Cmd.Stdout, l.Cmd.Stderr = &out, &out
	c, err := child.Start(l.Cmd)
	if err != nil {
		t.Fatal(err)
	}
	report, err := l.Report(t.Context())
	if err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if err := c.Wait(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return strings.Split(strings.TrimSpace(out.String()), "\n"), report
}

// plan is a plan with the test program, where a user of its own can run it.
func plan(t *testing.T) (p Plan, secret string) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "launch") //nolint:usetesting // t.TempDir() is ours alone, and another user must reach this
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, self, 0o755); err != nil { //nolint:gosec // it must run
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // another user must reach it
		t.Fatal(err)
	}
	secret = filepath.Join(dir, "open-to-all")
	if err := os.Mkdir(secret, 0o777); err != nil { //nolint:gosec // so that only Landlock is in the way
		t.Fatal(err)
	}
	if err := os.Chmod(secret, 0o777); err != nil { //nolint:gosec // the same
		t.Fatal(err)
	}
	return Plan{
		Program: program, Env: child.Environ(), MaxFiles: 64,
		ReadDirs: []string{"/usr/lib", "/lib", "/lib64"}, ReadFiles: []string{"/etc/ld.so.cache"}, WriteFiles: []string{"/dev/null"},
	}, secret
}

// TestConfined: what the report says is so.
func TestConfined(t *testing.T) {
	p, secret := plan(t)
	f, err := os.Open("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	p.Files = []*os.File{f}
	if IsRoot() {
		p.UID, p.Groups = 1_900_065_534, []int{1_900_065_533}
	}
	can, report := launched(t, p, secret, "/etc", "/")
	t.Logf("in force: %v; missing: %v; it can: %v", report.InForce, report.Missing, can)
	for _, want := range []string{"no-new-privs", "dies with its parent", "rlimit nofile 64", "rlimit core 0"} {
		if !slices.Contains(report.InForce, want) {
			t.Errorf("%q is not in force", want)
		}
	}
	if !slices.Contains(can, "writes /dev/null") || !slices.Contains(can, "core 0") || !slices.ContainsFunc(can, func(l string) bool { return strings.HasPrefix(l, "inherits ") }) {
		t.Errorf("it cannot do what it should: %v", can)
	}
	if abi, err := llsys.LandlockGetABIVersion(); err == nil && abi > 0 {
		for _, line := range can {
			if strings.HasPrefix(line, "reads ") || strings.HasPrefix(line, "writes ") && line != "writes /dev/null" {
				t.Errorf("Landlock is in force and it %s", line)
			}
		}
	}
	if slices.Contains(report.InForce, "netns") {
		for _, line := range can {
			if strings.HasPrefix(line, "card ") && line != "card lo" {
				t.Errorf("in a network namespace of its own there is a %s", line)
			}
		}
	}
	if p.UID != 0 && (!slices.Contains(can, "uid 1900065534 gid 1900065534") || !slices.Contains(can, "groups [1900065533]")) {
		t.Errorf("it is not the user it should be: %v", can)
	}
}

// TestRefusedNamespaces: where none may be had, the report says so.
func TestRefusedNamespaces(t *testing.T) {
	p, _ := plan(t)
	p.Refused = "not here"
	_, report := launched(t, p)
	if !slices.Contains(report.Missing, "netns: not here") {
		t.Errorf("missing: %v", report.Missing)
	}
	if IsRoot() != slices.Contains(report.Missing, "uid: it runs as root") {
		t.Errorf("missing: %v", report.Missing)
	}
}

// TestHiddenProgram: one below a directory that only we may enter runs as another user, too.
func TestHiddenProgram(t *testing.T) {
	if !IsRoot() {
		t.Skip("only root gives programs a user id")
	}
	p, _ := plan(t)
	p.UID = 1_900_065_534
	if err := os.Chmod(filepath.Dir(p.Program), 0o700); err != nil { //nolint:gosec // a directory
		t.Fatal(err)
	}
	if can, _ := launched(t, p); !slices.Contains(can, "uid 1900065534 gid 1900065534") {
		t.Errorf("it can: %v", can)
	}
}

// TestNoProgram: what cannot be run is told as the launch's error, with the cause.
func TestNoProgram(t *testing.T) {
	p, _ := plan(t)
	p.Program = "/nonexistent/program"
	l, err := Prepare(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := child.Start(l.Cmd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Report(t.Context()); err == nil || !strings.Contains(err.Error(), "/nonexistent/program") {
		t.Errorf("error %v", err)
	}
	if err := c.Wait(); err == nil {
		t.Error("the launcher ended well")
	}
}

// TestParentGone: a launcher whose parent is another than planned becomes nothing.
func TestParentGone(t *testing.T) {
	p, _ := plan(t)
	l, err := Prepare(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p.Parent, p.ParentNet = os.Getpid()+1, "x"
	_ = l.plan.Close()
	if l.plan, err = memfile(p); err != nil {
		t.Fatal(err)
	}
	l.Cmd.ExtraFiles[0] = l.plan
	c, err := child.Start(l.Cmd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Report(t.Context()); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("error %v", err)
	}
	_ = c.Wait()
}

func TestRefused(t *testing.T) {
	if !Refused(&fs.PathError{Err: syscall.EPERM}) || Refused(os.ErrNotExist) {
		t.Error("a refusal is told from another failure by its cause")
	}
}

// TestWorkDir: where a program may make sockets, it may make nothing else.
func TestWorkDir(t *testing.T) {
	p, open := plan(t)
	if IsRoot() {
		p.UID = 1_900_065_534
	}
	p.WorkDir = open
	can, report := launched(t, p, open, ".")
	if !slices.Contains(can, "listens") {
		t.Errorf("it cannot listen: %v; missing: %v", can, report.Missing)
	}
	if abi, err := llsys.LandlockGetABIVersion(); err == nil && abi > 0 {
		for _, line := range can {
			if strings.HasPrefix(line, "reads ") || strings.HasPrefix(line, "writes ") && line != "writes /dev/null" {
				t.Errorf("Landlock is in force and it %s", line)
			}
		}
	}
}

// TestTAP: the program finds a card, and we hold the other end of it. It needs a /dev/net/tun that we may open.
func TestTAP(t *testing.T) {
	if f, err := os.OpenFile(TunDevice, os.O_RDWR, 0); err != nil {
		t.Skipf("no TAPs here: %v", err)
	} else {
		_ = f.Close()
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer func() { _, _ = ours.Close(), theirs.Close() }()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	p, _ := plan(t)
	p.Files = []*os.File{theirs}
	p.TAP = &TAP{Name: "tap0", MTU: 65520, Socket: 0}
	can, _ := launched(t, p)
	if !slices.Contains(can, "card tap0") {
		t.Errorf("no card: %v", can)
	}
	wire, err := ReceiveFile(conn.(*net.UnixConn), "wire")
	if err != nil {
		t.Fatal(err)
	}
	_ = wire.Close()
	for _, line := range can {
		if strings.HasPrefix(line, "inherits") {
			t.Error("the program has the socket, too")
		}
	}

	p.Refused = "not here"
	l, err := Prepare(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := child.Start(l.Cmd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Report(t.Context()); err == nil || !strings.Contains(err.Error(), "network namespace") {
		t.Errorf("a card in the host's namespace: %v", err)
	}
	_ = c.Wait()
}
