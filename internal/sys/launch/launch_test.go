package launch

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/sys/child"
)

// probeCommand has the test program look at what is left to it, as the program that was launched.
const probeCommand = "probe"

// deniedCommand has the test program launch another one on a host that lets nobody make namespaces.
const deniedCommand = "denied"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case Command:
			os.Exit(Main())
		case probeCommand:
			os.Exit(probe(os.Args[2:]))
		case deniedCommand:
			os.Exit(denied(os.Args[2]))
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
	var data syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_DATA, &data)
	fmt.Println("data", data.Max)
	look()
	return 0
}

// look prints what a program in a root of its own sees.
func look() {
	fmt.Println("pid", os.Getpid())
	for _, kind := range kinds() {
		ns, _ := os.Readlink("/proc/self/ns/" + kind)
		fmt.Println("ns", kind, ns)
	}
	if err := os.WriteFile("/new", nil, 0o600); err == nil {
		fmt.Println("writes /new")
	}
	if cwd, err := os.Getwd(); err == nil {
		fmt.Println("cwd", cwd)
	}
	if err := unix.Unshare(unix.CLONE_NEWUSER); err == nil {
		fmt.Println("has namespaces below")
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it was looked at from outside
}

// launched runs the probe confined and returns what it can do.
func launched(t *testing.T, p Plan, paths ...string) ([]string, Report) {
	t.Helper()
	return launchedAnd(t, p, func(int) {}, paths...)
}

// launchedAnd has somebody look at the probe from outside, too.
func launchedAnd(t *testing.T, p Plan, outside func(pid int), paths ...string) ([]string, Report) {
	t.Helper()
	var out bytes.Buffer
	p.Args = append([]string{probeCommand}, paths...)
	l, err := Prepare(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Cmd.Stdout, l.Cmd.Stderr = &out, &out
	stdin, err := l.Cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c, err := child.Start(l.Cmd)
	if err != nil {
		t.Fatal(err)
	}
	report, err := l.Report(t.Context())
	if err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	outside(c.PID())
	_ = stdin.Close()
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
	p.MaxMemory = 1 << 50 // there is room for the race detector
	if IsRoot() {
		p.UID, p.Groups = 1_900_065_534, []int{1_900_065_533}
	}
	can, report := launched(t, p, secret, "/etc", "/")
	t.Logf("in force: %v; missing: %v; it can: %v", report.InForce, report.Missing, can)
	for _, want := range []string{"no-new-privs", "dies with its parent", "rlimit nofile 64", "rlimit core 0", "rlimit data 1125899906842624"} {
		if !slices.Contains(report.InForce, want) {
			t.Errorf("%q is not in force", want)
		}
	}
	if !slices.Contains(can, "writes /dev/null") || !slices.Contains(can, "core 0") || !slices.Contains(can, "data 1125899906842624") || !slices.ContainsFunc(can, func(l string) bool { return strings.HasPrefix(l, "inherits ") }) {
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
	other := exec.CommandContext(t.Context(), "/bin/true")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(other.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	gone := os.NewFile(uintptr(fd), "gone")
	defer func() { _ = gone.Close() }()
	_ = other.Wait()
	l.Cmd.ExtraFiles[2] = gone
	c, err := child.Start(l.Cmd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Report(t.Context()); err == nil || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("error %v", err)
	}
	_ = c.Wait()
}

// rooted is plan with a root of its own, on a host that lets it have one.
func rooted(t *testing.T) (Plan, string) {
	t.Helper()
	p, secret := plan(t)
	p.Root = true
	if IsRoot() {
		p.UID = 1_900_065_534
	}
	return p, secret
}

// TestRoot: in a root of its own there is nothing but what the plan names.
func TestRoot(t *testing.T) {
	p, secret := rooted(t)
	link := secret + "-link"
	if err := os.Symlink("launch-file", link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(secret), "launch-file"), []byte("x"), 0o644); err != nil { //nolint:gosec // another user must reach it
		t.Fatal(err)
	}
	p.ReadFiles = append(p.ReadFiles, link)
	mine, err := ours()
	if err != nil {
		t.Fatal(err)
	}
	var entries []string
	var status string
	can, report := launchedAnd(t, p, func(pid int) {
		entries, status = outside(t, pid, mine)
	}, secret, "/etc", "/", link, "/etc/passwd")
	t.Logf("in force: %v; missing: %v; it can: %v; its files: %v", report.InForce, report.Missing, can, entries)
	if !slices.Contains(report.InForce, "root") {
		t.Fatalf("no root of its own: %v", report.Missing)
	}
	for _, want := range []string{"pid 1", "cwd /", "writes /dev/null", "reads " + link} {
		if !slices.Contains(can, want) {
			t.Errorf("not so: %s", want)
		}
	}
	for _, line := range can {
		if strings.HasPrefix(line, "writes ") && line != "writes /dev/null" || strings.HasPrefix(line, "reads ") && line != "reads "+link {
			t.Errorf("it %s", line)
		}
	}
	for _, want := range []string{
		"NoNewPrivs:\t1", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("not so: %s in\n%s", want, status)
		}
	}
	dir := filepath.Dir(secret)
	for _, e := range entries {
		if !slices.ContainsFunc([]string{"/tmp", dir, p.Program, link, filepath.Join(dir, "launch-file"), "/dev", "/dev/null", "/proc", "/etc", "/etc/ld.so.cache", "/usr", "/usr/lib", "/lib", "/lib64", "/usr/lib64"}, func(known string) bool { return e == known }) {
			t.Errorf("%s is there", e)
		}
	}
	for kind, id := range mine {
		if kind != "user" && !slices.Contains(report.InForce, kind+"ns") || slices.Contains(can, "ns "+kind+" "+id) && (kind != "user" || !IsRoot()) {
			t.Errorf("it shares our %s namespace, or does not say that it has its own", kind)
		}
	}
	if !IsRoot() && slices.Contains(can, "has namespaces below") {
		t.Error("it makes user namespaces")
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), "nr_inodes=1k") {
		t.Errorf("its mounts are ours: %v", err)
	}
}

// outside returns what is in a process' root, but for what is below /usr/lib and its like, and its status.
func outside(t *testing.T, pid int, mine map[string]string) (entries []string, status string) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d", pid)
	root := proc + "/root"
	err := filepath.WalkDir(root+"/", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at := strings.TrimPrefix(path, root)
		if at != "/" {
			entries = append(entries, at)
		}
		if d.IsDir() && (at == "/proc" || strings.HasSuffix(at, "/lib") || strings.HasSuffix(at, "/lib64")) {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	processes, err := filepath.Glob(root + "/proc/[0-9]*")
	if err != nil || len(processes) != 1 {
		t.Errorf("it sees %v, %v", processes, err)
	}
	for kind, id := range mine {
		its, err := os.Readlink(proc + "/ns/" + kind)
		if err != nil || its == id && (kind != "user" || !IsRoot()) {
			t.Errorf("it is in our %s namespace (%v)", kind, err)
		}
	}
	b, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Error(err)
	}
	return entries, string(b)
}

// TestRootWorkDir: what it makes where it may is seen from outside, and there alone.
func TestRootWorkDir(t *testing.T) {
	p, open := rooted(t)
	p.WorkDir = open
	w, err := os.Open(open)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	p.WorkDir = fmt.Sprintf("/proc/self/fd/%d", w.Fd()) // as drivers name it
	can, report := launched(t, p, "/run", ".")
	if !slices.Contains(can, "listens") || !slices.Contains(can, "cwd /run") {
		t.Errorf("it cannot listen: %v; missing: %v", can, report.Missing)
	}
	if abi, err := llsys.LandlockGetABIVersion(); err == nil && abi > 0 && slices.Contains(can, "writes .") {
		t.Error("it writes files there")
	}
}

// TestRootRefused: where namespaces may not be had, less is asked for, in the end nothing, and the report says so.
func TestRootRefused(t *testing.T) {
	p, _ := rooted(t)
	if _, ok := p.Lesser(os.ErrNotExist); ok {
		t.Error("a failure for another reason is tried again")
	}
	less, ok := p.Lesser(&fs.PathError{Op: "fork/exec", Path: "x", Err: syscall.EPERM})
	if !ok || less.RootRefused == "" || less.Refused != "" {
		t.Fatalf("%+v, %v", less, ok)
	}
	can, report := launched(t, less)
	if !slices.Contains(report.InForce, "netns") || slices.Contains(report.InForce, "root") || slices.Contains(can, "pid 1") ||
		!slices.ContainsFunc(report.Missing, func(m string) bool { return strings.HasPrefix(m, "root: it can have none of its own: fork/exec") }) {
		t.Errorf("in force: %v; missing: %v", report.InForce, report.Missing)
	}
	least, ok := less.Lesser(syscall.ENOSPC)
	if !ok || least.Refused == "" {
		t.Fatalf("%+v, %v", least, ok)
	}
	if _, report = launched(t, least); slices.Contains(report.InForce, "netns") || len(report.Missing) < 2 {
		t.Errorf("in force: %v; missing: %v", report.InForce, report.Missing)
	}
	if _, ok := least.Lesser(syscall.EPERM); ok {
		t.Error("there is less than nothing")
	}
}

// denied forbids all namespaces below the one that it is in, and launches a program as an engine does, with a card or without.
func denied(card string) int {
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		fmt.Println(err)
		return 1
	}
	p := Plan{
		Program: "/bin/true", Env: child.Environ(), MaxFiles: 64, Root: true,
		ReadDirs: []string{"/usr/lib", "/lib", "/lib64"}, ReadFiles: []string{"/etc/ld.so.cache"}, WriteFiles: []string{"/dev/null"},
	}
	if card != "" {
		p.TAP = &TAP{Name: "tap0", MTU: 1500}
		p.Files = []*os.File{os.Stdin}
	}
	for {
		report, err := once(p)
		if err == nil {
			fmt.Printf("in force: %q\nmissing: %q\n", report.InForce, report.Missing)
			return 0
		}
		less, ok := p.Lesser(err)
		if !ok {
			fmt.Println("error:", err)
			return 0
		}
		p = less
	}
}

func once(p Plan) (Report, error) {
	l, err := Prepare(context.Background(), p)
	if err != nil {
		return Report{}, err
	}
	defer l.Close()
	c, err := child.Start(l.Cmd)
	if err != nil {
		return Report{}, err
	}
	report, err := l.Report(context.Background())
	_ = c.Wait()
	return report, err
}

// TestDenied: on a host that lets nobody make namespaces a program runs all the same and the report names the setting; one with
// a network card does not, and the error names it.
func TestDenied(t *testing.T) {
	run := func(card string) string {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", deniedCommand, card)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Skipf("no user namespace to forbid namespaces in: %v: %s", err, out)
		}
		return string(out)
	}
	const setting = "sudo sysctl -w user.max_user_namespaces=10000"
	out := run("")
	_, missing, _ := strings.Cut(out, "missing: ")
	if !strings.Contains(missing, "netns: ") || !strings.Contains(missing, "root: ") || !strings.Contains(missing, setting) || !strings.Contains(out, "no-new-privs") {
		t.Errorf("without a card: %s", out)
	}
	if out := run("card"); !strings.Contains(out, "error: ") || !strings.Contains(out, "network card") || !strings.Contains(out, setting) {
		t.Errorf("with a card: %s", out)
	}
}

// TestEnclosed: a user id that is its owner's is not missed where nothing is left that it could do, and only there.
func TestEnclosed(t *testing.T) {
	const miss = missingUID + "; it runs as 1000"
	for name, c := range map[string]struct {
		abi     int
		missing []string
		want    []string
	}{
		"as a user":          {7, []string{miss}, nil},
		"signals go through": {5, []string{miss}, []string{miss}},
		"as root":            {7, []string{"uid: it runs as root"}, []string{"uid: it runs as root"}},
		"another one":        {7, []string{"x: y", miss}, []string{"x: y"}},
	} {
		r := Report{Missing: c.missing, abi: c.abi}
		if r.Enclosed(); !slices.Equal(r.Missing, c.want) || len(r.InForce) != len(c.missing)-len(c.want) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestNamespacesRemedy: the setting that is in the way is named.
func TestNamespacesRemedy(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing in the way": {map[string]string{"proc/sys/user/max_user_namespaces": "100\n"}, ""},
		"Debian's switch":    {map[string]string{"proc/sys/kernel/unprivileged_userns_clone": "0\n"}, "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		"Ubuntu's AppArmor": {
			map[string]string{"proc/sys/kernel/unprivileged_userns_clone": "1\n", "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n", "proc/self/attr/current": "unconfined\n"},
			"sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
		},
		"a profile of ours": {map[string]string{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n", "proc/self/attr/current": "smolvm (unconfined)\n"}, ""},
		"none allowed":      {map[string]string{"proc/sys/user/max_user_namespaces": "0\n"}, "sudo sysctl -w user.max_user_namespaces=10000"},
		"a container":       {map[string]string{".dockerenv": ""}, "in a container: start it with --privileged, or --cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for f, content := range c.files {
				path := filepath.Join(root, f)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := namespacesRemedy(root); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
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
	p.Root, p.Devices = true, []string{TunDevice}
	can, report := launched(t, p, TunDevice)
	if !slices.Contains(can, "card tap0") || slices.Contains(report.InForce, "root") && !slices.Contains(can, "reads "+TunDevice) {
		t.Errorf("no card: %v, missing: %v", can, report.Missing)
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
