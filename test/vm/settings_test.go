package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// served is `smolvm serve` at a socket, and a client of it.
type served struct {
	t      *testing.T
	client *http.Client
}

func serve(t *testing.T, c cli) served {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	b := c.background(t, "serve", "--socket", socket)
	b.line(t)
	t.Cleanup(func() { b.kill(t) })
	return served{t, &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}}
}

// call sends a request and wants a status.
func (s served) call(status int, method, path, body string, out any) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://smolvm"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != status {
		s.t.Fatalf("%s %s: %d %s, %v", method, path, res.StatusCode, b, err)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			s.t.Fatalf("%v in %s", err, b)
		}
	}
}

// gone waits until nothing of a VM is left.
func (s served) gone(box api.Sandbox, limit time.Duration) {
	s.t.Helper()
	took := eventually(s.t, limit, box.ID+" is gone", func() bool {
		_, err := os.Stat(box.Dir)
		return errors.Is(err, fs.ErrNotExist) && !lives(box.SupervisorPID) && !lives(box.VMMPID)
	})
	s.t.Logf("gone after %s", took)
}

// TestVMCoreOwners: over the API, a VM goes with its client, or with its lease, and stays where it was kept; what else of it can be
// changed while it runs is.
func TestVMCoreOwners(t *testing.T) {
	c := program(t)
	s := serve(t, c)
	t.Run("client killed", func(t *testing.T) {
		s.t = t
		client := exec.CommandContext(t.Context(), "sleep", "1000")
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		var box api.Sandbox
		s.call(201, "POST", "/v1/sandboxes", fmt.Sprintf(`{"id": %q, "start": true, "memory_mib": 512, "owner": "client", "client_pid": %d}`, c.name(t, "owned"), client.Process.Pid), &box)
		s.call(200, "POST", "/v1/sandboxes/"+box.ID+"/exec", `{"argv": ["true"]}`, nil)
		kill(t, client.Process.Pid)
		s.gone(box, 5*time.Second)
		_ = client.Wait()
	})
	t.Run("lease", func(t *testing.T) {
		s.t = t
		var box api.Sandbox
		s.call(201, "POST", "/v1/sandboxes", fmt.Sprintf(`{"id": %q, "start": true, "memory_mib": 512, "owner": "lease"}`, c.name(t, "lease")), &box)
		vm := "/v1/sandboxes/" + box.ID
		for range 4 {
			s.call(204, "PUT", vm+"/owner", `{"owner": "lease", "lease_ms": 2000}`, nil)
			time.Sleep(time.Second)
		}
		s.call(204, "PUT", vm+"/owner", `{"owner": "keep"}`, nil)
		time.Sleep(2500 * time.Millisecond)
		s.call(200, "PATCH", vm+"/env", `{"set": {"MODE": "test"}}`, nil)
		var out api.CommandResult
		if s.call(200, "POST", vm+"/exec", `{"script": "echo $MODE", "login": true}`, &out); out.Stdout != "test\n" {
			t.Errorf("%+v", out)
		}
		s.call(200, "PUT", vm+"/ttl", `{"ttl_ms": 1500}`, &box)
		if box.ExpiresAt == nil {
			t.Errorf("%+v", box)
		}
		eventually(t, 30*time.Second, "its time is over", func() bool { return c.inspect(t, box.ID).State == api.StateStopped })
		s.call(204, "PUT", vm+"/owner", `{"owner": "lease", "lease_ms": 1000}`, nil)
		eventually(t, 5*time.Second, "the lease of a VM that does not run lapses", func() bool { return !c.exists(t.Context(), box.ID) })
	})
}
