package vm

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// echoService is what listens in the guest, on its loopback only: it sends back what it gets, and prints how connections break.
const echoService = `
import socket, threading
def one(c):
    try:
        while True:
            b = c.recv(65536)
            if not b: break
            c.sendall(b)
        c.sendall(b"END")
    except OSError as e:
        print(type(e).__name__, flush=True)
    c.close()
l = socket.create_server(("127.0.0.1", 7000), backlog=512)
print("up", flush=True)
while True:
    threading.Thread(target=one, args=(l.accept()[0],), daemon=True).start()
`

// TestVMCorePorts: published ports carry TCP with all that belongs to it, and nothing of them outlives its VM.
func TestVMCorePorts(t *testing.T) {
	c := program(t)
	id := c.name(t, "ports")
	c.ok(t, "create", "--name", id, "--net", "none", "-p", "7000")
	r := c.run(t, "start", id)
	if r.code != 0 || !strings.Contains(r.stderr, "is port 7000 of "+id) {
		t.Fatalf("%+v", r)
	}
	p := c.ports(t, id)[0]
	if p.Address != "127.0.0.1" || p.HostPort == 0 || p.GuestPort != 7000 {
		t.Fatalf("%+v", p)
	}
	t.Run("nothing listens", func(t *testing.T) { reset(t, p) })
	b := c.background(t, "exec", id, "--", "python3", "-u", "-c", echoService)
	c.ok(t, "port", "wait", "--timeout", "5m", id, "7000")
	if got := b.line(t); got != "up" {
		t.Fatalf("the guest says %q", got)
	}
	t.Run("both ways at once", func(t *testing.T) {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { through(t, p.Host(), 1<<20) })
		}
		all.Wait()
	})
	t.Run("breaks", func(t *testing.T) {
		conn := dial(t, p.Host())
		if _, err := io.WriteString(conn, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetLinger(0)
		_ = conn.Close()
		if got := b.line(t); got != "ConnectionResetError" {
			t.Errorf("the guest sees %q", got)
		}
	})
	t.Run("many", func(t *testing.T) {
		var conns []*net.TCPConn
		for range 100 {
			conns = append(conns, dial(t, p.Host()))
		}
		for _, conn := range conns {
			if _, err := io.WriteString(conn, "x"); err != nil {
				t.Fatal(err)
			}
		}
		for _, conn := range conns {
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
		}
	})
	t.Run("change", func(t *testing.T) { portsChange(t, c, id, p) })
	t.Run("ssh", func(t *testing.T) { portsSSH(t, c, id) })
	t.Run("supervisor killed", func(t *testing.T) {
		conn := dial(t, p.Host())
		if _, err := io.WriteString(conn, "x"); err != nil {
			t.Fatal(err)
		}
		kill(t, c.inspect(t, id).SupervisorPID)
		eventually(t, patience, "the port is free", func() bool { return !listening(p.Host()) })
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client sees %v", err)
		}
	})
	c.ok(t, "start", id)
	if again := c.ports(t, id); len(again) != 1 || again[0] != p {
		t.Errorf("it was %+v and is %+v", p, again)
	}
	c.exec(t, id, "sh", "-c", "python3 -m http.server --bind ::1 7000 >/dev/null 2>&1 &")
	c.ok(t, "port", "wait", "--timeout", "5m", id, "7000")
	if !listening(p.Host()) {
		t.Error("the port is not there after a new start")
	}
	c.ok(t, "rm", "-f", id)
	if listening(p.Host()) {
		t.Error("the port outlives its VM")
	}
}

// portsChange adds and removes ports while the VM runs.
func portsChange(t *testing.T, c cli, id string, p api.Port) {
	other, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	number := strconv.Itoa(other.Addr().(*net.TCPAddr).Port)
	r := c.run(t, "port", "add", id, number+":7000")
	r.says(t, "port "+number+" of 127.0.0.1 is taken")
	if r.code != 1 || len(c.ports(t, id)) != 1 {
		t.Errorf("%+v, %+v", r, c.ports(t, id))
	}
	name := c.name(t, "taken")
	r = c.run(t, "run", "--name", name, "-p", number+":80", "--", "true")
	r.says(t, "is taken")
	if r.code != 125 || c.exists(t.Context(), name) {
		t.Errorf("%+v", r)
	}
	at := strings.TrimSpace(c.ok(t, "port", "add", id, "7000"))
	through(t, at, 1000)
	if r := c.run(t, "port", "add", id, "[::1]:0:7000"); r.code == 0 {
		through(t, strings.TrimSpace(r.stdout), 1000)
		c.ok(t, "port", "rm", id, strings.TrimSpace(r.stdout)+":7000")
	}
	conn := dial(t, at)
	c.ok(t, "port", "rm", id, at+":7000")
	if _, err := conn.Read(make([]byte, 1)); err == nil || listening(at) {
		t.Errorf("after its end: %v", err)
	}
	if got := c.ok(t, "net", "log", id); !strings.Contains(got, "allow port 127.0.0.1 port 7000") {
		t.Errorf("the record: %s", got)
	}
	through(t, p.Host(), 1000)
}

// portsSSH reaches the guest with plain ssh.
func portsSSH(t *testing.T, c cli, id string) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("there is no OpenSSH client; script/bootstrap --dev installs it")
	}
	at := strings.TrimSpace(c.ok(t, "port", "add", id, "22"))
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	dir := c.inspect(t, id).Dir
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ssh", "-F", "/dev/null", "-p", port, "-i", filepath.Join(dir, "..", "..", "ssh", "id_ed25519"),
		"-o", "UserKnownHostsFile="+filepath.Join(dir, "known_hosts"), "-o", "HostKeyAlias=smolvm-"+id, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"root@"+host, "hostname").CombinedOutput()
	if err != nil || string(out) != id+"\n" {
		t.Errorf("%q, %v", out, err)
	}
	c.ok(t, "port", "rm", id, "22")
}

// ports is what port ls says of a VM.
func (c cli) ports(t *testing.T, id string) []api.Port {
	t.Helper()
	var ports []api.Port
	decode(t, c.ok(t, "port", "ls", "--json", id), &ports)
	return ports
}

func dial(t *testing.T, at string) *net.TCPConn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

func listening(at string) bool {
	conn, err := net.DialTimeout("tcp", at, 5*time.Second) //nolint:noctx // it has a limit
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// through sends bytes to the service, ends its own direction, and wants them back.
func through(t *testing.T, at string, size int) {
	t.Helper()
	data := make([]byte, size)
	_, _ = rand.Read(data)
	conn := dial(t, at)
	go func() {
		_, _ = conn.Write(data)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, append(data, "END"...)) {
		t.Errorf("%d of %d bytes came back, %v", len(got), size+3, err)
	}
}

// reset wants a connection to break.
func reset(t *testing.T, p api.Port) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.Host())
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
}
