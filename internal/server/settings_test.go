package server

import (
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

const sshKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIItpPbk9jOQqNZ/u/U25yBS+1NlRuP8AtGWCQ2pubbBC"

// gone waits until a VM is not there any more.
func (r *rig) gone(id string, limit time.Duration) {
	r.t.Helper()
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		res := r.send("GET", "/v1/sandboxes/"+id, nil)
		_ = res.Body.Close()
		if res.StatusCode == 404 {
			return
		}
		if time.Since(begun) > limit {
			r.t.Fatalf("%s is there still after %s", id, limit)
		}
	}
}

// TestSettings: what can be changed of a VM while it runs.
func TestSettings(t *testing.T) {
	r := newRig(t)
	const vm = "/v1/sandboxes/web"
	r.call(201, "POST", "/v1/sandboxes", `{"id": "web", "disk_mib": 256, "start": true, "env": {"KEY": "hidden"}}`, nil)
	t.Run("env", func(t *testing.T) {
		var e struct{ Env map[string]string }
		if r.call(200, "GET", vm+"/env", nil, &e); e.Env["KEY"] != api.Masked {
			t.Errorf("%v", e)
		}
		if got := r.call(200, "PATCH", vm+"/env", `{"set": {"B": "it's 2", "KEY": "other"}}`, &e); len(e.Env) != 2 || strings.Contains(got, "other") {
			t.Error(got)
		}
		if r.call(200, "GET", vm+"/env?show=true", nil, &e); e.Env["KEY"] != "other" {
			t.Errorf("%v", e)
		}
		if got := r.call(200, "POST", vm+"/exec", `{"script": "echo $KEY $B"}`, nil); !strings.Contains(got, `other it's 2`) {
			t.Error(got)
		}
		for body, says := range map[string]string{
			`{"set": {"NULLED": null}}`:              "NULLED",
			`{"set": {"NUMBER": 3}}`:                 "NUMBER",
			`{"set": {"NUL": "a\u0000b"}}`:           "NUL",
			`{"set": {"A B": ""}}`:                   "A B",
			`{"set": {"": ""}}`:                      "variable name",
			`{"unset": ["A=B"]}`:                     "A=B",
			`{"set": {"X": "1"}, "unset": ["X"]}`:    "X is to be set and unset",
			`{"frob": 1}`:                            "body.frob",
			`{"set": "A=1"}`:                         "body.set",
			`{"set": {"BIG": "` + big() + `"}}`:      "more than",
			`{"set": {"LONG": "` + big()[:10] + `"}`: "",
		} {
			if got := r.call(400, "PATCH", vm+"/env", body, nil); !strings.Contains(got, says) || !strings.Contains(got, `"code":"invalid"`) {
				t.Errorf("%.60s: %.300s", body, got)
			}
		}
		if got := r.call(200, "PATCH", vm+"/env", `{"replace": true}`, nil); !strings.Contains(got, `"env":{}`) {
			t.Error(got)
		}
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { r.call(200, "PATCH", vm+"/env", `{"set": {"A": "1"}}`, nil) })
		}
		all.Wait()
	})
	t.Run("ttl", func(t *testing.T) {
		var box api.Sandbox
		if r.call(200, "PUT", vm+"/ttl", `{"ttl_ms": 60000}`, &box); box.ExpiresAt == nil || time.Until(*box.ExpiresAt) > time.Minute {
			t.Errorf("%+v", box)
		}
		for _, body := range []string{`{}`, `{"ttl_ms": -1}`, `{"ttl_ms": "1"}`, `{"ttl_ms": 9223372036854775807}`, `{"ttl_ms": 1e300}`} {
			r.call(400, "PUT", vm+"/ttl", body, nil)
		}
		if got := r.call(200, "PUT", vm+"/ttl", `{"ttl_ms": 0}`, nil); strings.Contains(got, "expires_at") {
			t.Error(got)
		}
	})
	t.Run("owner", func(t *testing.T) {
		for _, body := range []string{`{}`, `{"owner": "me"}`, `{"owner": "keep", "client_pid": 5}`, `{"owner": "client", "client_pid": 1073741824}`, `{"owner": "lease", "lease_ms": 1}`, `{"owner": "client", "lease_ms": 5000}`} {
			r.call(400, "PUT", vm+"/owner", body, nil)
		}
		r.call(204, "PUT", vm+"/owner", `{"owner": "client"}`, nil)
		var box api.Sandbox
		if r.call(200, "GET", vm, nil, &box); box.Owner != api.OwnerClient {
			t.Errorf("%+v", box)
		}
		for range 3 {
			r.call(204, "PUT", vm+"/owner", `{"owner": "lease", "lease_ms": 1000}`, nil)
			time.Sleep(500 * time.Millisecond)
		}
		r.call(200, "GET", vm, nil, nil)
		r.gone("web", 6*time.Second)
	})
	t.Run("nobody's", func(t *testing.T) {
		for _, route := range []string{"GET /env", "PATCH /env", "PUT /ttl", "PUT /owner"} {
			method, path, _ := strings.Cut(route, " ")
			body := map[string]any{"GET": nil, "PATCH": `{}`, "PUT": `{"ttl_ms": 1}`}[method]
			if path == "/owner" {
				body = `{"owner": "keep"}`
			}
			r.call(404, method, vm+path, body, nil)
		}
	})
}

// big is more than an environment may be.
func big() string { return strings.Repeat("x", 1<<20) }

// TestClientKilled: a VM that was bound to a process over the API goes with it, in five seconds.
func TestClientKilled(t *testing.T) {
	r := newRig(t)
	for _, later := range []bool{false, true} {
		client := exec.CommandContext(t.Context(), "sleep", "600")
		if err := client.Start(); err != nil {
			t.Fatal(err)
		}
		owner := map[string]any{"owner": "client", "client_pid": client.Process.Pid}
		vm := map[string]any{"id": "mine", "disk_mib": 256, "start": true}
		if !later {
			vm["owner"], vm["client_pid"] = owner["owner"], owner["client_pid"]
		}
		r.call(201, "POST", "/v1/sandboxes", vm, nil)
		if later {
			r.call(204, "PUT", "/v1/sandboxes/mine/owner", owner, nil)
		}
		_ = client.Process.Kill()
		_ = client.Wait()
		r.gone("mine", 5*time.Second)
	}
}

// TestSSHImage: what the answer names boots, with its key; ten at once get the same.
func TestSSHImage(t *testing.T) {
	r := newRig(t)
	var first api.SSHImage
	body := map[string]any{"ssh_public_key": sshKey, "name": "py", "rootfs_size_mb": 300}
	r.call(200, "POST", "/v1/images/ssh", body, &first)
	if !filepath.IsAbs(first.KernelPath) || !strings.HasPrefix(filepath.Base(filepath.Dir(first.RootfsPath)), "py-") {
		t.Errorf("%+v", first)
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			var again api.SSHImage
			if r.call(200, "POST", "/v1/images/ssh", body, &again); again != first {
				t.Errorf("%+v", again)
			}
		})
	}
	all.Wait()
	var box api.Sandbox
	r.call(201, "POST", "/v1/sandboxes", map[string]any{"id": "web", "rootfs_path": first.RootfsPath, "boot_args": "console=ttyS0 reboot=k a=1", "owner": "lease", "start": true}, &box)
	if box.Config.DiskMiB != 300 || len(box.Config.AuthorizedKeys) != 1 || box.Config.Image != "" || box.Owner != api.OwnerLease {
		t.Errorf("%+v", box)
	}
	for body, status := range map[string]int{
		`{}`: 400, `{"ssh_public_key": "-----BEGIN OPENSSH PRIVATE KEY-----"}`: 400, `{"ssh_public_key": "` + sshKey + `", "name": "../x"}`: 400, `{"ssh_public_key": 3}`: 400,
	} {
		r.call(status, "POST", "/v1/images/ssh", body, nil)
	}
	for body, status := range map[string]int{
		`{"id": "bad", "rootfs_path": "/nowhere"}`:                                404,
		`{"id": "bad", "rootfs_path": "relative"}`:                                400,
		`{"id": "bad", "rootfs_path": "/dev/zero"}`:                               400,
		`{"id": "bad", "rootfs_path": "` + first.KernelPath + `"}`:                500,
		`{"id": "bad", "image": "debian", "rootfs_path": "/x"}`:                   400,
		`{"id": "bad", "boot_args": "smolvm.raw"}`:                                400,
		`{"id": "bad", "boot_args": "a\u0007"}`:                                   400,
		`{"id": "bad", "authorized_keys": ["ssh-ed25519 AAAA"]}`:                  400,
		`{"id": "bad", "authorized_keys": [null]}`:                                400,
		`{"id": "bad", "owner": "lease", "lease_ms": 5}`:                          400,
		`{"id": "bad", "env": {"KEY": null}}`:                                     400,
		`{"id": "bad", "boot_args": "` + strings.Repeat("x", 2049) + `"}`:         400,
		`{"id": "bad", "rootfs_path": "` + first.RootfsPath + `", "disk_mib": 1}`: 400,
	} {
		r.call(status, "POST", "/v1/sandboxes", body, nil)
	}
	r.call(404, "GET", "/v1/sandboxes/bad", nil, nil)
}
