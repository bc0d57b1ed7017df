package egress

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

//go:embed client.py
var client string

func TestMain(m *testing.M) {
	switch os.Getenv(partVar) {
	case partWorld:
		runWorld()
	case partClient:
		runClient()
	}
	os.Exit(m.Run())
}

// TestVMCoreEgress runs the suite in a network namespace of its own.
func TestVMCoreEgress(t *testing.T) { apart(t, "^TestInside$") }

// apart runs tests in a network namespace of their own.
func apart(t *testing.T, pattern string) {
	t.Helper()
	if os.Getenv("SMOLVM_VM_TESTS") != "1" {
		t.Skip("boots virtual machines; script/test runs it")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs iproute2")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run="+pattern, "-test.v", "-test.timeout="+flag.Lookup("test.timeout").Value.String())
	cmd.Env = append(os.Environ(), partVar+"="+partInside)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(os.Stdout, &out), os.Stdout // as it comes: a suite that hangs has told how far it got
	if err := cmd.Run(); err != nil {
		t.Errorf("the suite: %v", err)
	} else if !bytes.Contains(out.Bytes(), []byte("\n--- PASS: TestInside")) {
		t.Error("the suite did not run")
	}
}

// suite is one run: a VM, and the outside.
type suite struct {
	*testing.T
	bin   string
	id    string
	world *world
}

// inside is a suite for the VM id, in the namespace that apart made, with an outside that the host trusts.
func inside(t *testing.T, id string) *suite {
	t.Helper()
	if os.Getenv(partVar) != partInside {
		t.Skip("a test that makes a network namespace runs it")
	}
	bin := os.Getenv("SMOLVM_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "bin", "smolvm")
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	newAuthority(t)
	return &suite{T: t, bin: bin, id: id, world: startWorld(t)}
}

// TestInside is the suite.
func TestInside(t *testing.T) {
	s := inside(t, "t-egress-"+strconv.Itoa(os.Getpid()))
	opened, closed := s.listener("127.0.0.1:0"), s.listener(":0")
	allow := allowArgs(opened)
	s.ok(append([]string{"create", "--name", s.id}, allow...)...)
	t.Cleanup(func() { _, _ = s.run("rm", "-f", s.id) })
	s.start(s.id)

	fmt.Printf("\n| mode | way out | expected | seen | how |\n| --- | --- | --- | --- | --- |\n")
	s.rows("allow", allowRows(opened, closed))
	s.killed()
	s.changed(allow)
	s.web()
	s.ok("net", "set", s.id, "--net", "open", "--dns", resolver)
	s.rows("open", openRows(closed))
	s.other("open")
	s.ok("net", "set", s.id, "--net", "none")
	s.rows("none", noneRows())
	s.ok("stop", s.id)
	s.start(s.id)
	s.rows("none, after a restart", noneRows())
	s.secrets()
}

// listener is a service of the host's; its port is returned.
func (s *suite) listener(at string) string {
	l, err := (&net.ListenConfig{}).Listen(s.Context(), "tcp4", at)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = l.Close() })
	go greet(l)
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func (s *suite) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.Context()), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.bin, args...)
	cmd.Stdin = strings.NewReader(client)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("smolvm %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

func (s *suite) ok(args ...string) string {
	s.Helper()
	out, err := s.run(args...)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

// start starts a VM. Below an emulated processor one dies now and then for no fault of ours: it is told of and started once more.
func (s *suite) start(id string) {
	s.Helper()
	if os.Getenv("SMOLVM_LAB_INSIDE") == "1" {
		_, err := s.run("start", id)
		if err == nil {
			return
		}
		s.Logf("once more: %v", err)
	}
	s.ok("start", id)
}

// probe has the client try one way.
func (s *suite) probe(args ...string) (verdict, how string) {
	out, err := s.run(append([]string{"exec", "-i", s.id, "--", "python3", "-"}, args...)...)
	if err != nil {
		return "error", err.Error()
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	verdict, how, _ = strings.Cut(lines[len(lines)-1], " ")
	return verdict, how
}

// rows tries one way after the other and looks at both ends.
func (s *suite) rows(mode string, rows []row) {
	for _, r := range rows {
		s.world.take()
		verdict, how := s.probe(r.probe...)
		s.judge(mode, r, verdict, how, s.world.take())
	}
}

// judge compares, and writes the row. What reached the outside counts whatever the client says.
func (s *suite) judge(mode string, r row, verdict, how string, reached []string) {
	if verdict == "deny" {
		for _, what := range reached {
			if r.asks && (strings.HasPrefix(what, "dns ") || what == "udp "+resolver+":53") {
				continue
			}
			if strings.Contains(r.name, "rebinding") && (what == "tcp "+public+":80" || what == "tcp "+public+":8080") {
				continue // the first answer
			}
			verdict, how = "leak", what
		}
	}
	if verdict == "allow" && len(reached) == 0 && r.probe != nil && r.probe[1] != "host.smolvm.internal" {
		verdict, how = "unseen", how+", but nothing was seen outside: the suite is blind"
	}
	mark := ""
	if verdict != r.want {
		mark = " **unexpected**"
		s.Errorf("%s, %s: %s (%s), want %s", mode, r.name, verdict, how, r.want)
	}
	fmt.Printf("| %s | %s | %s | %s%s | %s |\n", mode, r.name, r.want, verdict, mark, how)
}

// hold starts a connection and waits until it is up; the channel tells how it ended.
func (s *suite) hold(args ...string) <-chan string {
	return s.holding(append([]string{"exec", "-i", s.id, "--", "python3", "-"}, args...), args[0] == "hold")
}

// holding starts a command and, where it says so, waits for its "up".
func (s *suite) holding(args []string, up bool) <-chan string {
	cmd := exec.CommandContext(s.Context(), s.bin, args...)
	cmd.Stdin = strings.NewReader(client)
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	said, ended := make(chan string, 1), make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(out)
		last := ""
		for lines.Scan() {
			last = lines.Text()
			select {
			case said <- last:
			default:
			}
		}
		close(said)
		_ = cmd.Wait()
		ended <- last
	}()
	if up {
		if got := <-said; !strings.HasPrefix(got, "up") {
			s.Fatalf("the connection did not come up: %q", got)
		}
	}
	return ended
}

// killed kills the gateway below a connection, and below attempts that may not succeed.
func (s *suite) killed() {
	held, hammer := s.hold("hold", "good.test", "8080"), s.hold("hammer", public, "80", "3")
	s.world.take()
	for range 5 {
		s.killGateway()
		time.Sleep(300 * time.Millisecond)
	}
	verdict, how, _ := strings.Cut(<-held, " ")
	s.judge("allow", row{name: "gateway killed: the open flow", want: "deny"}, verdict, how, nil)
	if how != "ConnectionResetError" {
		s.Errorf("the open flow ended with %s", how)
	}
	verdict, how, _ = strings.Cut(<-hammer, " ")
	var reached []string
	for _, what := range s.world.take() {
		if what == "tcp "+public+":80" && verdict == "allow" {
			reached = append(reached, what)
		}
	}
	s.judge("allow", row{name: "gateway killed: attempts meanwhile", want: "deny"}, verdict, how, reached)
	s.rows("allow, after kills", allowRows("1", "2")[:9])
}

func (s *suite) killGateway() {
	s.Helper()
	_ = syscall.Kill(s.gateway(), syscall.SIGKILL)
}

// gateway is the process that the VM under test has for one.
func (s *suite) gateway() int {
	s.Helper()
	var box api.Sandbox
	if err := json.Unmarshal([]byte(s.ok("inspect", s.id)), &box); err != nil {
		s.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", box.SupervisorPID))
		for _, file := range files {
			pids, _ := os.ReadFile(file)
			for pid := range strings.FieldsSeq(string(pids)) {
				line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
				if n, err := strconv.Atoi(pid); err == nil && strings.HasSuffix(string(line), "\x00gateway\x00") {
					return n
				}
			}
		}
	}
	s.Fatal("the VM has no gateway")
	return 0
}

// changed changes the policy below a connection.
func (s *suite) changed(allow []string) {
	held := s.hold("hold", "good.test", "8080")
	s.ok("net", "set", s.id, "--net", "none")
	verdict, how, _ := strings.Cut(<-held, " ")
	s.judge("allow to none", row{name: "policy changed under a live flow", want: "deny"}, verdict, how, nil)
	if how != "ConnectionResetError" {
		s.Errorf("the flow ended with %s", how)
	}
	s.ok(append([]string{"net", "set", s.id}, allow...)...)
	held = s.hold("hold", "good.test", "8080")
	s.ok("net", "set", s.id, "--allow", "good.test:8080", "--dns", resolver)
	select {
	case how := <-held:
		s.Errorf("a flow that stays allowed has ended: %s", how)
	case <-time.After(time.Second):
	}
	s.ok("net", "set", s.id, "--allow", "good.test:443", "--dns", resolver)
	verdict, how, _ = strings.Cut(<-held, " ")
	s.judge("allow", row{name: "its port is no longer allowed", want: "deny"}, verdict, how, nil)
}
