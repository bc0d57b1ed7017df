package vm

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// TestVMPolicy: a policy decides what a guest reaches, also when it is changed while the VM runs and after a restart, and
// what it decided is on record. The host's loopback stands for the world, so that no test needs a network.
func TestVMPolicy(t *testing.T) {
	c := program(t)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "from the host") }))
	defer site.Close()
	closed, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = closed.Close() }()
	port := site.Listener.Addr().(*net.TCPAddr).Port
	other := closed.Addr().(*net.TCPAddr).Port
	fetch := func(id, host string, port int) string {
		t.Helper()
		return c.sh(t, id, fmt.Sprintf("curl -sS -m 20 http://%s:%d/ 2>&1 || echo; echo $?", host, port))
	}

	id := c.vm(t, "policy", "--allow", fmt.Sprintf("host.smolvm.internal:%d", port))
	if got := fetch(id, "host.smolvm.internal", port); got != "from the host0\n" {
		t.Errorf("what a rule opens: %q", got)
	}
	for _, to := range []struct {
		host string
		port int
	}{
		{"host.smolvm.internal", other}, {"10.83.0.1", port}, {"10.0.0.1", 80}, {"169.254.169.254", 80}, {"198.51.100.1", 80}, {"example.com", 80},
	} {
		if got := fetch(id, to.host, to.port); !strings.Contains(got, "curl: ") {
			t.Errorf("%v: %q", to, got)
		}
	}

	// It may be taken back while the VM runs, and stays so.
	if got := c.ok(t, "net", "set", id, "--net", "none"); got != id+"\n" {
		t.Errorf("net set prints %q", got)
	}
	if got := fetch(id, "host.smolvm.internal", port); !strings.Contains(got, "curl: ") {
		t.Errorf("after it was taken back: %q", got)
	}
	c.ok(t, "stop", id)
	c.ok(t, "start", id)
	if s := c.inspect(t, id); s.Network.Mode != api.NetNone || s.Config.Network.Mode != api.NetAllow {
		t.Errorf("after a restart: in force %+v, asked for %+v", s.Network, s.Config.Network)
	}
	if got := fetch(id, "host.smolvm.internal", port); !strings.Contains(got, "curl: ") {
		t.Errorf("after a restart: %q", got)
	}
	c.run(t, "net", "set", id, "--net", "open", "--deny", "example.com").want(t, 2)
	if got := c.ok(t, "net", "show", id); got != "mode: none\n" {
		t.Errorf("net show prints %q", got)
	}
	record(t, c, id, port)
}

// record looks for what the guest did.
func record(t *testing.T, c cli, id string, port int) {
	t.Helper()
	seen := map[string]bool{}
	for line := range strings.Lines(c.ok(t, "net", "log", "--json", id)) {
		var r api.NetRecord
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Time.IsZero() || time.Since(r.Time) > time.Hour {
			t.Errorf("%v in %s", err, line)
		}
		seen[fmt.Sprintf("%s %s %s%s:%d", r.Verdict, r.Kind, r.Name, r.Addr, r.Port)] = true
		if r.Verdict == "allow" && r.Kind == "tcp" && (r.BytesIn == 0 || r.BytesOut == 0 || !strings.HasPrefix(r.Rule, "allow host.smolvm.internal")) {
			t.Errorf("the allowed connection: %s", line)
		}
	}
	for _, want := range []string{
		fmt.Sprintf("allow tcp host.smolvm.internal127.0.0.1:%d", port), "deny tcp 10.0.0.1:80", "deny tcp 169.254.169.254:80", "deny tcp 198.51.100.1:80", "deny dns example.com:0",
	} {
		if !seen[want] {
			t.Errorf("the record has no %q: %v", want, seen)
		}
	}
	var s api.NetStats
	decode(t, c.ok(t, "net", "stats", "--json", id), &s)
	if s.FlowsAllowed != 1 || s.FlowsDenied < 4 || s.BytesIn == 0 || len(s.Peers) < 4 {
		t.Errorf("the sums: %+v", s)
	}
}
