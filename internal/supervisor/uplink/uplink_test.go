package uplink

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/gateway/process"
	"github.com/smolvm/smolvm/internal/network/secret"
)

// TestMain plays the program: an uplink starts /proc/self/exe as a gateway.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == control.Command {
		os.Exit(process.Main(context.Background()))
	}
	os.Exit(m.Run())
}

// line is an uplink with a guest's card that we move by hand.
type line struct {
	*testing.T
	*Uplink
	asked uint16

	mu      sync.Mutex
	records []api.NetRecord
	ends    []string
}

func start(t *testing.T) *line {
	t.Helper()
	l := &line{T: t}
	u, err := Start(t.Context(), Options{
		Names: filepath.Join(t.TempDir(), "names"), Log: slog.New(slog.DiscardHandler),
		Record: func(r api.NetRecord) { l.mu.Lock(); defer l.mu.Unlock(); l.records = append(l.records, r) },
		Ended:  func(why string) { t.Log(why); l.mu.Lock(); defer l.mu.Unlock(); l.ends = append(l.ends, why) },
	})
	if err != nil {
		t.Fatal(err)
	}
	l.Uplink = u
	t.Cleanup(func() { _ = u.Close() })
	return l
}

// ask asks the gateway's name server for a name's address; "" when it has none, or nobody answers.
func (l *line) ask(name string) string {
	l.Helper()
	return l.askAt(int(l.NIC().Fd()), name)
}

// askAt asks at one end of a wire.
func (l *line) askAt(fd int, name string) string {
	l.Helper()
	l.asked++
	q := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: l.asked},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	msg, err := q.Pack()
	if err != nil {
		l.Fatal(err)
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2})
	if err := unix.Send(fd, udp(msg), 0); err != nil {
		l.Fatal(err)
	}
	b := make([]byte, 4096)
	var a dnsmessage.Message
	for a.ID != l.asked { // answers to what was asked before may come late
		n, err := unix.Read(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			l.Logf("%s: %v", name, err)
			return ""
		}
		if err := a.Unpack(b[42:n]); err != nil {
			l.Fatal(err)
		}
	}
	if len(a.Answers) != 1 {
		return ""
	}
	ip := a.Answers[0].Body.(*dnsmessage.AResource).A
	return string(ip[:])
}

// udp is a guest's frame with a datagram for the gateway's name server.
func udp(payload []byte) []byte {
	var b bytes.Buffer
	b.Write(control.GatewayMAC())
	b.Write(control.GuestMAC())
	b.Write([]byte{8, 0})
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0}
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(payload)))
	ip = append(append(ip, control.Guest().Addr().AsSlice()...), control.Gateway().AsSlice()...)
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	b.Write(ip)
	b.Write(binary.BigEndian.AppendUint16([]byte{0x80, 1, 0, 53}, uint16(8+len(payload))))
	b.Write([]byte{0, 0})
	b.Write(payload)
	return b.Bytes()
}

func allowing(names ...string) api.NetworkPolicy {
	p := api.NetworkPolicy{Mode: api.NetAllow}
	for _, n := range names {
		p.Rules = append(p.Rules, api.NetworkRule{Action: api.RuleAllow, Host: n})
	}
	return p
}

// TestUplink: nothing passes before a policy; one that comes later counts at once; a gateway that is killed is followed by
// another one with the same policy and the same names.
func TestUplink(t *testing.T) {
	l := start(t)
	if got := l.ask("a.example."); got != "" {
		t.Errorf("before there is a policy: %x", got)
	}
	if err := l.SetPolicy(t.Context(), allowing("a.example", "b.example")); err != nil {
		t.Fatal(err)
	}
	b := l.ask("b.example.")
	a := l.ask("a.example.")
	if a == "" || b == "" || a == b {
		t.Fatalf("a is %x, b is %x", a, b)
	}
	for range 3 {
		pid := l.PID()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "another gateway", func() bool { p := l.PID(); return p != 0 && p != pid })
		if got := l.ask("a.example."); got != a {
			t.Errorf("after its death a is %x, not %x", got, a)
		}
	}
	if err := l.SetPolicy(t.Context(), allowing("b.example")); err != nil {
		t.Fatal(err)
	}
	if got := l.ask("a.example."); got != "" {
		t.Errorf("a is not allowed any more, and is %x", got)
	}
	bad := api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{{Action: api.RuleAllow, CIDR: "127.0.0.1/32"}}}
	if err := l.SetPolicy(t.Context(), bad); err == nil {
		t.Error("a policy that cannot be is taken")
	}
	if got := l.ask("b.example."); got != b {
		t.Errorf("after a refusal b is %x, not %x", got, b)
	}
	s, err := l.Stats(t.Context())
	if err != nil || s.Questions == 0 {
		t.Errorf("%+v, %v", s, err)
	}
	waitFor(t, "records", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.records) > 3 && len(l.ends) == 3 })
	l.mu.Lock()
	defer l.mu.Unlock()
	if !strings.Contains(l.ends[0], "killed") {
		t.Errorf("its end is told as %q", l.ends[0])
	}
}

// TestSetWhileDown: a policy that is set while a gateway dies is the next one's.
func TestSetWhileDown(t *testing.T) {
	l := start(t)
	if err := l.SetPolicy(t.Context(), allowing("a.example")); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(l.PID(), syscall.SIGKILL)
	if err := l.SetPolicy(t.Context(), allowing("b.example")); err != nil {
		t.Fatal(err)
	}
	if a, b := l.ask("a.example."), l.ask("b.example."); a != "" || b == "" {
		t.Errorf("a is %x, b is %x", a, b)
	}
	// One that does not answer is replaced.
	pid := l.PID()
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	time.Sleep(100 * time.Millisecond) // until its threads have stopped
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := l.SetPolicy(ctx, allowing("c.example")); err == nil {
		t.Error("a gateway that is stopped has taken a policy")
	}
	waitFor(t, "another gateway", func() bool { p := l.PID(); return p != 0 && p != pid })
	if a, c := l.ask("b.example."), l.ask("c.example."); a != "" || c == "" {
		t.Errorf("b is %x, c is %x", a, c)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

// TestOwnWire: a wire that somebody else made, such as a TAP, is used and closed, and what is no wire fails with what it is.
func TestOwnWire(t *testing.T) {
	ours, theirs, err := pair()
	if err != nil {
		t.Fatal(err)
	}
	l := &line{T: t}
	if l.Uplink, err = Start(t.Context(), Options{Names: filepath.Join(t.TempDir(), "names"), Log: slog.New(slog.DiscardHandler), Wire: ours}); err != nil {
		t.Fatal(err)
	}
	if l.NIC() != nil {
		t.Error("it made another one")
	}
	l.nic = theirs // where the test asks
	if err := l.SetPolicy(t.Context(), api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{{Action: api.RuleAllow, Host: "a.example"}}}); err != nil {
		t.Fatal(err)
	}
	if got := l.ask("a.example."); !strings.HasPrefix(got, "\xc6\x12") { // 198.18
		t.Errorf("it answers %q", got)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := ours.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the wire is still open: %v", err)
	}

	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if l.Uplink, err = Start(t.Context(), Options{Names: filepath.Join(t.TempDir(), "names"), Log: slog.New(slog.DiscardHandler), Wire: null}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := l.SetPolicy(t.Context(), api.NetworkPolicy{Mode: api.NetNone}); err == nil || !strings.Contains(err.Error(), "no TAP") {
		t.Errorf("with /dev/null for a wire: %v", err)
	}
}

// TestConfined: each thread of a gateway has the filter of system calls, and may gain nothing.
func TestConfined(t *testing.T) {
	l := start(t)
	if err := l.SetPolicy(t.Context(), api.NetworkPolicy{Mode: api.NetNone}); err != nil {
		t.Fatal(err)
	}
	s, err := l.session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", s.child.PID()))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d threads, %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		for _, want := range []string{"\nSeccomp:\t2\n", "\nNoNewPrivs:\t1\n"} {
			if !bytes.Contains(b, []byte(want)) {
				t.Errorf("%s does not say %q", file, want)
			}
		}
	}
}

// TestTake: a card's other end that a monitor made becomes the wire, whenever it comes, and no gateway is said to have failed.
func TestTake(t *testing.T) {
	l := start(t)
	if err := l.SetPolicy(t.Context(), allowing("a.example")); err != nil {
		t.Fatal(err)
	}
	if l.ask("a.example.") == "" {
		t.Fatal("nobody answers")
	}
	for range 2 { // the second while the gateway of the first may still be starting
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(fds[1]) }()
		if err := l.Take(os.NewFile(uintptr(fds[0]), "wire")); err != nil {
			t.Fatal(err)
		}
		if l.until(func() bool { return l.askAt(fds[1], "a.example.") != "" }); t.Failed() {
			t.Fatal("nobody answers at the wire that was taken")
		}
	}
	if l.until(func() bool { return l.ask("a.example.") != "" }); t.Failed() {
		t.Fatal("nobody answers at the first wire, which NIC made the wire again")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ends) > 0 {
		t.Errorf("failures were told of: %v", l.ends)
	}
}

// until tries something for a while.
func (l *line) until(do func() bool) {
	l.Helper()
	for range 10 {
		if do() {
			return
		}
	}
	l.Error("it never was so")
}

// TestSecrets: secrets count at once and for the next gateway too; those that no request could carry are refused, and change nothing.
func TestSecrets(t *testing.T) {
	l := start(t)
	if err := l.SetPolicy(t.Context(), allowing("a.example")); err != nil {
		t.Fatal(err)
	}
	one := secret.Secret{Name: "TOKEN", Placeholder: secret.Placeholder("", 24), Value: "a value of some length", Hosts: []string{"a.example"}}
	if err := l.SetSecrets(t.Context(), []secret.Secret{one}); err != nil {
		t.Fatal(err)
	}
	other := one
	other.Hosts = []string{"b.example"}
	if err := l.SetSecrets(t.Context(), []secret.Secret{other}); err == nil || strings.Contains(err.Error(), one.Value) {
		t.Errorf("for a name that no rule allows: %v", err)
	}
	// As long as it is there, its host must stay within reach.
	if err := l.SetPolicy(t.Context(), allowing("b.example")); err == nil {
		t.Error("a policy that cuts off a secret's host is taken")
	}
	pid, authority := l.PID(), l.Authority()
	_ = syscall.Kill(pid, syscall.SIGKILL)
	waitFor(t, "another gateway", func() bool { p := l.PID(); return p != 0 && p != pid })
	if err := l.SetPolicy(t.Context(), allowing("b.example")); err == nil {
		t.Error("the next gateway knows nothing of the secret")
	}
	if !bytes.Equal(l.Authority(), authority) {
		t.Error("the next gateway has another authority")
	}
	if err := l.SetSecrets(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := l.SetPolicy(t.Context(), allowing("b.example")); err != nil {
		t.Error(err)
	}
}
