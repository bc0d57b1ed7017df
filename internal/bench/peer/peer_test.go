package peer

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/gateway/process"
)

// TestMain plays the program: an uplink starts /proc/self/exe as a gateway.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == control.Command {
		os.Exit(process.Main(context.Background()))
	}
	os.Exit(m.Run())
}

// greets dials and reads what the host's service says.
func greets(t *testing.T, p *Peer, port string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	c, err := p.Dial(ctx, port)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	b, err := io.ReadAll(c)
	if err == nil && string(b) != "hello" {
		err = fmt.Errorf("it says %q", b)
	}
	return err
}

// TestGateway: a kernel behind a TAP reaches the port that is opened and no other one, also after the gateway was killed: the
// next one takes the same TAP.
func TestGateway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a TAP and a network namespace")
	}
	if err := unix.Access("/dev/net/tun", unix.R_OK|unix.W_OK); err != nil {
		t.Skipf("no TAP on this machine: /dev/net/tun: %v", err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello")
			_ = c.Close()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	p, err := Gateway(t.Context(), t.TempDir(), strconv.Itoa(port), Card{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := greets(t, p, strconv.Itoa(port)); err != nil {
		t.Fatal(err)
	}
	if err := greets(t, p, strconv.Itoa(port^1)); err == nil {
		t.Error("another port is open")
	}
	for range 3 {
		kill(t)
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if err = greets(t, p, strconv.Itoa(port)); err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("after the gateway's death: %v", err)
			}
		}
	}
}

// TestCards: segments are left to a TAP and to a card with a packet socket, and none to a plain one; all work.
func TestCards(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a TAP and a network namespace")
	}
	if err := unix.Access("/dev/net/tun", unix.R_OK|unix.W_OK); err != nil {
		t.Skipf("no TAP on this machine: /dev/net/tun: %v", err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	const size = 8 << 20
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n, _ := io.CopyN(io.Discard, c, size)
			_, _ = c.Write(make([]byte, n))
			_ = c.Close()
		}
	}()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	for name, card := range map[string]Card{"TAP": {MTU: 1500}, "packet socket": {MTU: 1500, Packet: true}, "plain": {MTU: 1500, Plain: true}} {
		p, err := Gateway(t.Context(), t.TempDir(), port, card, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer p.Close()
		c, err := p.Dial(t.Context(), port)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err = c.Write(make([]byte, size)); err == nil {
			_, err = io.CopyN(io.Discard, c, size)
		}
		_ = c.Close()
		s, serr := p.Stats(t.Context())
		if err != nil || serr != nil || (s.LargeIn > 0) == card.Plain || (s.LargeOut > 0) == card.Plain {
			t.Errorf("%s: %+v, %v, %v", name, s, err, serr)
		}
	}
}

// kill kills the gateway that is a child of ours.
func kill(t *testing.T) {
	t.Helper()
	files, _ := filepath.Glob("/proc/self/task/*/children")
	for _, file := range files {
		pids, _ := os.ReadFile(file)
		for text := range strings.FieldsSeq(string(pids)) {
			line, _ := os.ReadFile("/proc/" + text + "/cmdline")
			if pid, err := strconv.Atoi(text); err == nil && strings.HasSuffix(string(line), "\x00"+control.Command+"\x00") {
				_ = syscall.Kill(pid, syscall.SIGKILL)
				return
			}
		}
	}
	t.Fatal("there is no gateway")
}
