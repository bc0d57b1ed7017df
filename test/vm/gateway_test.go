package vm

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// flows is what the guest does: it holds a connection, tells how it ends, and then makes another one.
const flows = `
import socket, sys, time
def talk(s, text):
    s.sendall(text)
    got = b""
    while len(got) < len(text):
        more = s.recv(65536)
        if not more: raise OSError("end")
        got += more
    return got == text
def connect():
    s = socket.create_connection(("host.smolvm.internal", int(sys.argv[1])), timeout=60)
    assert talk(s, b"x" * 300000)
    return s
for _ in range(int(sys.argv[2])):
    s = connect()
    print("up", flush=True)
    time.sleep(1) # killed in the middle of an answer, the gateway leaves a guest that only waits, whom nobody can tell
    try:
        while talk(s, b"y" * 1000): time.sleep(0.05)
    except OSError as e:
        print("ended", type(e).__name__, flush=True)
`

// TestVMCoreGateway: a gateway that is killed resets what was open, and the guest goes on with the next connection; the VM
// does not notice. The gateway is confined.
func TestVMCoreGateway(t *testing.T) {
	c := program(t)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	id := c.vm(t, "gateway", "--allow", fmt.Sprintf("host.smolvm.internal:%d", port))
	s := c.inspect(t, id)
	gatewayConfined(t, gatewayOf(t, s))

	const kills = 3
	b := c.background(t, "exec", id, "--", "python3", "-u", "-c", flows, itoa(port), itoa(kills))
	for range kills {
		if got := b.line(t); got != "up" {
			t.Fatalf("the guest says %q", got)
		}
		kill(t, gatewayOf(t, s))
		if got := b.line(t); got != "ended ConnectionResetError" {
			t.Errorf("the guest says %q", got)
		}
	}
	if after := c.inspect(t, id); after.State != api.StateRunning || after.SupervisorPID != s.SupervisorPID || after.VMMPID != s.VMMPID {
		t.Errorf("the VM has noticed: %+v", after)
	}
	events, err := os.ReadFile(filepath.Join(s.Dir, "events.jsonl"))
	if err != nil || strings.Count(string(events), `"type":"gateway"`) != kills {
		t.Errorf("%v in\n%s", err, events)
	}
}

// gatewayOf finds a VM's gateway.
func gatewayOf(t *testing.T, s api.Sandbox) int {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		children, _ := filepath.Glob("/proc/" + itoa(s.SupervisorPID) + "/task/*/children")
		for _, file := range children {
			pids, _ := os.ReadFile(file)
			for pid := range strings.FieldsSeq(string(pids)) {
				line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
				if strings.HasSuffix(string(line), "\x00gateway\x00") {
					n, _ := strconv.Atoi(pid)
					return n
				}
			}
		}
	}
	t.Fatal("the VM has no gateway")
	return 0
}

// gatewayConfined checks what a gateway can not do.
func gatewayConfined(t *testing.T, pid int) {
	t.Helper()
	b, err := os.ReadFile("/proc/" + itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	status := map[string]string{}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		status[name] = strings.TrimSpace(value)
	}
	if status["NoNewPrivs"] != "1" {
		t.Errorf("no-new-privs is %q", status["NoNewPrivs"])
	}
	if os.Geteuid() != 0 {
		return
	}
	uid, _ := strconv.Atoi(strings.Fields(status["Uid"])[0])
	if uid < 1_900_000_000+1<<16 || status["CapEff"] != "0000000000000000" || status["Groups"] != "" {
		t.Errorf("user %d, capabilities %s, groups %q", uid, status["CapEff"], status["Groups"])
	}
}
