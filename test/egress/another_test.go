package egress

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// servicePort is where another VM listens.
const servicePort = "5099"

// another is a second VM on this host, which tells what reaches it.
type another struct {
	*suite
	id   string
	mu   sync.Mutex
	seen []string
}

// startAnother starts a VM that may do more than the one under test, with a service that listens on all its addresses.
func (s *suite) startAnother() *another {
	s.Helper()
	a := &another{suite: s, id: s.id + "-b"}
	s.ok("create", "--name", a.id, "--net", "open", "--dns", resolver)
	s.Cleanup(func() { _, _ = s.run("rm", "-f", a.id) })
	s.start(a.id)
	cmd := exec.CommandContext(s.Context(), s.bin, "exec", "-i", a.id, "--", "python3", "-", "watch", servicePort)
	cmd.Stdin = strings.NewReader(client)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "watching" {
		s.Fatalf("the other VM says %q", lines.Text())
	}
	go func() {
		for lines.Scan() {
			a.mu.Lock()
			a.seen = append(a.seen, lines.Text())
			a.mu.Unlock()
		}
	}()
	return a
}

// take returns what reached it since the last time.
func (a *another) take() []string {
	time.Sleep(300 * time.Millisecond)
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := a.seen
	a.seen = nil
	return seen
}

// publish has a port of the host's loopback lead to its service. Where this program cannot do that yet, a listener of the
// host's stands for it: to the first VM they are the same.
func (a *another) publish() (port, how string) {
	a.Helper()
	l, err := (&net.ListenConfig{}).Listen(a.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		a.Fatal(err)
	}
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		a.Fatal(err)
	}
	_ = l.Close()
	if _, err := a.run("port", "add", a.id, port+":"+servicePort); err == nil {
		return port, "published"
	}
	return a.listener("127.0.0.1:0"), "a listener that stands for a published port"
}

// other tries to reach another VM of the same host: on the wire, by addresses, and by what it publishes.
func (s *suite) other(mode string) {
	b := s.startAnother()
	s.world.take()
	for _, r := range []row{
		{"another VM: its addresses", []string{"any", servicePort, "10.83.0.2", "10.83.0.6", "10.83.0.10", "10.83.1.2"}, "deny", false},
		{"another VM: frames to its card", []string{"neighbour", servicePort}, "deny", false},
		{"another VM: broadcasts", []string{"broadcast", servicePort}, "deny", false},
	} {
		verdict, how := s.probe(r.probe...)
		reached := s.world.take()
		for _, what := range b.take() {
			reached = append(reached, "another VM: "+what)
		}
		s.judge(mode, r, verdict, how, reached)
	}
	// It hears what is meant for it: without this, silence would tell nothing.
	if out, err := s.run("exec", "-i", b.id, "--", "python3", "-", "tcp", "127.0.0.1", servicePort); err != nil || !strings.HasPrefix(out, "allow") {
		s.Errorf("the other VM's service does not answer itself: %s (%v)", out, err)
	}
	if _, err := s.run("exec", "-i", b.id, "--", "python3", "-", "ping", "10.83.0.1"); err != nil {
		s.Error(err)
	}
	if heard := strings.Join(b.take(), "\n"); !strings.Contains(heard, "service") || !strings.Contains(heard, "frame") {
		s.Errorf("the other VM hears only %q: the suite is blind", heard)
	}
	port, how := b.publish()
	if err := answers(net.JoinHostPort("127.0.0.1", port)); err != nil {
		s.Errorf("the published port does not answer the host: %v", err)
	}
	b.take()
	s.world.take()
	for _, r := range []row{
		{"another VM: its published port (" + how + ")", []string{"any", port, "host.smolvm.internal", "loop.wild.test", "127.0.0.1", "10.83.0.1", own}, "deny", true},
	} {
		verdict, how := s.probe(r.probe...)
		s.judge(mode, r, verdict, how, append(s.world.take(), b.take()...))
	}
	s.flood(mode, b)
	s.ok("rm", "-f", b.id)
}

// mostMemory is what a gateway may hold whatever its guest sends, in kB.
const mostMemory = 320 << 10

// flood has the guest send garbage as fast as it can: its gateway stays small, the other VM goes on meanwhile, and the guest
// itself when it stops.
func (s *suite) flood(mode string, b *another) {
	pid := s.gateway()
	ended := s.hold("flood", "6")
	most := 0
	deadline := time.After(2 * time.Minute)
	for how, over := "", false; !over; {
		verdict := "deny"
		if out, err := s.run("exec", "-i", b.id, "--", "python3", "-", "tcp", public, "80"); err == nil {
			verdict, how, _ = strings.Cut(strings.TrimSpace(out), " ")
		}
		most = max(most, dirty(pid))
		select {
		case last := <-ended:
			over = true
			s.judge(mode, row{name: "flood of frames: another VM goes on", want: "allow"}, verdict, how+"; "+last, nil)
		case <-deadline:
			s.Fatal("the flood does not end")
		default:
			if verdict != "allow" {
				s.Errorf("another VM, during a flood of frames: %s %s", verdict, how)
			}
		}
	}
	if most == 0 || most > mostMemory {
		s.Errorf("the flooded gateway held %d kB, at most %d are right", most, mostMemory)
	}
	if now := s.gateway(); now != pid {
		s.Errorf("the flooded gateway, process %d, has died; now there is %d", pid, now)
	}
	s.world.take()
	verdict, how := s.probe("tcp", public, "80")
	s.judge(mode, row{name: "flood of frames: the guest goes on after it", probe: []string{"tcp", public}, want: "allow"}, verdict, how, s.world.take())
}

// dirty is what a process holds in memory of its own, in kB; 0 when it is gone.
func dirty(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Private_Dirty:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			return n
		}
	}
	return 0
}

// answers asks a service for its greeting.
func answers(at string) error {
	c, err := (&net.Dialer{Timeout: 10 * time.Second}).Dial("tcp", at) //nolint:noctx // it has a limit
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		return fmt.Errorf("%q, %w", b, err)
	}
	return nil
}
