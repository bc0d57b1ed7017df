package server

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/server/gate"
	"github.com/smolvm/smolvm/internal/server/hostpath"
	"github.com/smolvm/smolvm/internal/server/listen"
	"github.com/smolvm/smolvm/internal/sys/token"
)

// bearing adds a token to requests.
type bearing struct {
	token *string
	to    string
	via   http.RoundTripper
}

func (b bearing) RoundTrip(r *http.Request) (*http.Response, error) {
	r.URL.Host, r.Host = b.to, b.to
	r.Header.Set("Authorization", "Bearer "+*b.token)
	return b.via.RoundTrip(r)
}

// TestOverTCP: the token opens all that is of VMs, and nothing that is of the server's host.
func TestOverTCP(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	allowed := t.TempDir()
	if err := os.Symlink("/etc/shadow", filepath.Join(allowed, "link")); err != nil {
		t.Fatal(err)
	}
	o, err := options(home)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := token.Ensure(token.Path(home))
	if err != nil {
		t.Fatal(err)
	}
	l, named, err := listen.TCP(t.Context(), "127.0.0.1:0", "", "")
	if err != nil {
		t.Fatal(err)
	}
	o.Remote = gate.NewRemote(o.Log, (&token.File{Path: token.Path(home)}).Token, named, Open()...)
	if o.Paths, err = hostpath.Below([]string{allowed}); err != nil {
		t.Fatal(err)
	}
	s := New(context.WithoutCancel(t.Context()), o)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	r := &rig{t: t, s: s, home: home, client: &http.Client{Transport: bearing{&secret, l.Addr().String(), transport}}}

	var box api.Sandbox
	r.call(201, "POST", "/v1/sandboxes", map[string]any{"id": "far", "disk_mib": 256, "env": map[string]string{"A": "cmd:id", "B": "file:/etc/shadow", "C": "env:HOME"}}, &box)
	r.call(200, "GET", "/v1/sandboxes/far?show_env=true", nil, &box)
	if box.Config.Env["A"] != "cmd:id" || box.Config.Env["B"] != "file:/etc/shadow" || box.Config.Env["C"] != "env:HOME" {
		t.Errorf("a value was taken for a source: %v", box.Config.Env)
	}
	for _, field := range []string{"kernel_path", "rootfs_path"} {
		for _, path := range []string{"/etc/shadow", allowed + "/../../../etc/shadow", "../../etc/shadow", allowed + "/link", "cmd:id", "file:/etc/shadow", "/no/such/file"} {
			if got := r.call(403, "POST", "/v1/sandboxes", map[string]any{field: path}, nil); !strings.Contains(got, `"code":"denied"`) {
				t.Errorf("%s %s: %s", field, path, got)
			}
		}
		r.call(404, "POST", "/v1/sandboxes", map[string]any{field: allowed + "/absent"}, nil)
	}
	// A secret's source is something of the server's host, and is not even recorded; a value is a value, whatever it looks like.
	hosts := []string{"a.example.com"}
	for _, source := range []string{"cmd:id", "file:/etc/shadow", "env:HOME"} {
		if got := r.call(403, "POST", "/v1/sandboxes", map[string]any{"secrets": []any{map[string]any{"name": "S", "hosts": hosts, "source": source}}}, nil); !strings.Contains(got, `"code":"denied"`) {
			t.Errorf("%s: %s", source, got)
		}
		r.call(403, "PATCH", "/v1/sandboxes/far/secrets", map[string]any{"sources": map[string]any{"S": source}}, nil)
	}
	r.call(201, "POST", "/v1/sandboxes", map[string]any{"id": "sec", "disk_mib": 256, "start": true, "secrets": []any{map[string]any{"name": "S", "hosts": hosts}}, "secret_values": map[string]any{"S": "cmd:id #123"}}, nil)
	r.call(200, "PATCH", "/v1/sandboxes/sec/secrets", map[string]any{"values": map[string]any{"S": "file:/etc/shadow"}}, nil)
	if got := r.call(200, "GET", "/v1/sandboxes/sec/secrets", nil, nil); strings.Contains(got, "shadow") || !strings.Contains(got, `"hosts":["a.example.com"]`) {
		t.Errorf("the secrets: %s", got)
	}
	r.call(204, "DELETE", "/v1/sandboxes/sec?force=true", nil, nil)
	r.call(403, "POST", "/v1/images/ssh", map[string]any{"ssh_public_key": "ssh-ed25519 AAAA"}, nil)
	r.call(400, "POST", "/v1/sandboxes", map[string]any{"owner": "client"}, nil)
	r.call(400, "POST", "/v1/sandboxes", map[string]any{"owner": "client", "client_pid": 1}, nil)
	r.call(400, "PUT", "/v1/sandboxes/far/owner", map[string]any{"owner": "client"}, nil)
	r.call(204, "DELETE", "/v1/sandboxes/far", nil, nil)

	old := secret
	if secret, err = token.Rotate(token.Path(home)); err != nil {
		t.Fatal(err)
	}
	r.call(200, "GET", "/v1/sandboxes", nil, nil)
	secret = old
	r.call(401, "GET", "/v1/sandboxes", nil, nil)
	r.call(200, "GET", "/docs", nil, nil)
	r.call(200, "GET", "/v1/health", nil, nil)
	r.call(403, "GET", "/docs", nil, nil, "Origin", "http://evil.example")
}
