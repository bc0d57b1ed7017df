package server

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/server/listen"
	"github.com/smolvm/smolvm/internal/sys/lock"
)

// rig is a server at a socket, over the fake engine, and a client of it.
type rig struct {
	t      *testing.T
	s      *Server
	client *http.Client
	home   string
	socket string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	t.Setenv("SMOLVM_TEST_VERDICTS", filepath.Join(t.TempDir(), "verdicts"))
	r := &rig{t: t, home: filepath.Join(t.TempDir(), "home")}
	o, err := options(r.home)
	if err != nil {
		t.Fatal(err)
	}
	r.s, r.socket = New(context.WithoutCancel(t.Context()), o), filepath.Join(r.home, "serve", "s.sock")
	l, err := listen.Unix(t.Context(), r.socket, o.Log)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.s.Serve(l) }()
	r.client = unixClient(r.socket)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		boxes, err := o.VMs.List(ctx, true)
		if err != nil {
			t.Error(err)
		}
		for _, b := range boxes {
			if err := o.VMs.Remove(ctx, b.ID, true); err != nil {
				t.Error(err)
			}
		}
		_ = r.s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.client.CloseIdleConnections()
	})
	return r
}

func unixClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

// send sends a request; in is its body: nil, bytes as they are, else JSON.
func (r *rig) send(method, path string, in any, headers ...string) *http.Response {
	r.t.Helper()
	var body io.Reader
	kind := "application/json"
	switch b := in.(type) {
	case nil:
	case []byte:
		body, kind = bytes.NewReader(b), "application/octet-stream"
	case string:
		body = strings.NewReader(b)
	default:
		raw, err := json.Marshal(in)
		if err != nil {
			r.t.Fatal(err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://smolvm"+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

// call wants a status and returns the answer's body, read into out when it is not nil.
func (r *rig) call(status int, method, path string, in, out any, headers ...string) string {
	r.t.Helper()
	res := r.send(method, path, in, headers...)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	if res.StatusCode != status {
		r.t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, b)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			r.t.Fatalf("%s %s: %v in %s", method, path, err, b)
		}
	}
	return string(b)
}

// TestRoutes: the whole API in the order of a VM's life.
func TestRoutes(t *testing.T) {
	r := newRig(t)
	var box api.Sandbox
	r.call(201, "POST", "/v1/sandboxes", map[string]any{"id": "web", "disk_mib": 256, "start": true, "env": map[string]string{"KEY": "hidden"}}, &box)
	if box.State != api.StateRunning || strings.Contains(r.call(200, "GET", "/v1/sandboxes/web", nil, nil), "hidden") {
		t.Errorf("%+v", box)
	}
	if got := r.call(200, "GET", "/v1/sandboxes/web?show_env=true", nil, nil); !strings.Contains(got, "hidden") {
		t.Error(got)
	}
	for name, f := range map[string]func(*rig){"files": filesOf, "tar": tars, "network": networks, "ports": published, "watch": watches, "images": imagesOf, "server": ofServer, "at once": atOnce} {
		t.Run(name, func(t *testing.T) {
			sub := *r
			sub.t = t
			f(&sub)
		})
	}
	r.call(200, "POST", "/v1/sandboxes/web/stop", nil, &box)
	r.call(200, "PATCH", "/v1/sandboxes/web", api.Limits{MemoryMiB: 512}, &box)
	if box.State != api.StateStopped || box.Config.MemoryMiB != 512 {
		t.Errorf("%+v", box)
	}
	r.call(200, "POST", "/v1/sandboxes/web/rename", map[string]string{"id": "other"}, &box)
	r.call(404, "GET", "/v1/sandboxes/web", nil, nil)
	r.call(204, "DELETE", "/v1/sandboxes/"+box.ID, nil, nil)
	r.call(404, "GET", "/v1/sandboxes/other/stats", nil, nil)
	r.call(404, "GET", "/v1/sandboxes/other/logs", nil, nil)
	r.call(404, "GET", "/v1/sandboxes/other/events", nil, nil)
	r.call(404, "GET", "/v1/sandboxes/other/network/log", nil, nil)
	r.call(404, "GET", "/v1/sandboxes/other/files/stat?path=/", nil, nil)
}

// of is a route about a file.
func of(what, path string, more ...string) string {
	q := url.Values{"path": {path}}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return "/v1/sandboxes/web/files" + what + "?" + q.Encode()
}

func filesOf(r *rig) {
	t := r.t
	dir := t.TempDir() // the fake guest is this host
	file := dir + "/a b/file"
	content := bytes.Repeat([]byte("0123456789"), 500_000)
	r.call(204, "POST", "/v1/sandboxes/web/files/mkdir", map[string]any{"path": dir + "/a b", "mode": "0750", "parents": true}, nil)
	r.call(204, "PUT", of("/content", file, "mode", "0640"), content, nil)
	if got := r.call(200, "GET", of("/content", file), nil, nil); got != string(content) {
		t.Errorf("%d bytes came back", len(got))
	}
	for spec, want := range map[string]string{"bytes=3-6": "3456", "bytes=-4": "6789", "bytes=4999995-": "56789", "bytes=4999998-9999999": "89"} {
		res := r.send("GET", of("/content", file), nil, "Range", spec)
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != 206 || string(b) != want || !strings.HasPrefix(res.Header.Get("Content-Range"), "bytes ") {
			t.Errorf("%s: %d %q %v", spec, res.StatusCode, b, res.Header)
		}
	}
	if got := r.call(416, "GET", of("/content", file), nil, nil, "Range", "bytes=5000000-"); !strings.Contains(got, `"code":"invalid"`) {
		t.Error(got)
	}
	r.call(200, "GET", of("/content", file), nil, nil, "Range", "bytes=0-1,3-4")
	if got := r.call(200, "GET", of("/content", "/proc/self/status"), nil, nil); !strings.Contains(got, "Name:") {
		t.Errorf("a file of the kernel's: %q", got)
	}
	var info api.FileInfo
	r.call(200, "GET", of("/stat", file), nil, &info)
	if info.Type != "file" || info.Size != int64(len(content)) || info.Mode != 0o640 {
		t.Errorf("%+v", info)
	}
	r.call(204, "POST", "/v1/sandboxes/web/files/chmod", map[string]string{"path": file, "mode": "600"}, nil)
	r.call(204, "POST", "/v1/sandboxes/web/files/move", map[string]string{"from": file, "to": dir + "/other"}, nil)
	var list struct{ Entries []api.FileInfo }
	r.call(200, "GET", of("/list", dir), nil, &list)
	if len(list.Entries) != 2 || list.Entries[1].Name != "other" || list.Entries[1].Mode != 0o600 {
		t.Errorf("%+v", list)
	}
	if got := r.call(200, "GET", of("/list", dir+"/a b"), nil, nil); !strings.Contains(got, `"entries":[]`) {
		t.Error(got)
	}
	r.call(204, "DELETE", of("", dir+"/other"), nil, nil)
	r.call(404, "GET", of("/content", dir+"/other"), nil, nil)
	r.call(400, "GET", of("/content", dir), nil, nil)
	for _, path := range []string{"relative", "", "/a\x00b"} {
		r.call(400, "GET", of("/content", path), nil, nil)
	}
	r.call(400, "PUT", of("/content", file, "mode", "0999"), content, nil)
	r.call(204, "DELETE", of("", dir+"/a b", "recursive", "true"), nil, nil)
}

func tars(r *rig) {
	dir := r.t.TempDir()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "d/f", Mode: 0o644, Size: 4})
	_, _ = w.Write([]byte("text"))
	_ = w.Close()
	r.call(204, "PUT", of("/tar", dir), b.Bytes(), nil)
	names := []string{}
	for in := tar.NewReader(strings.NewReader(r.call(200, "GET", of("/tar", dir+"/d"), nil, nil))); ; {
		h, err := in.Next()
		if err != nil {
			break
		}
		names = append(names, h.Name)
	}
	if !slices.Contains(names, "d/f") {
		r.t.Error(names)
	}
	r.call(404, "GET", of("/tar", dir+"/absent"), nil, nil)
}

func networks(r *rig) {
	var p api.NetworkPolicy
	r.call(200, "PUT", "/v1/sandboxes/web/network", map[string]any{"mode": "allow", "rules": []any{map[string]any{"action": "allow", "host": "example.com"}}}, &p)
	if p.Mode != api.NetAllow || len(p.Rules) != 1 {
		r.t.Errorf("%+v", p)
	}
	r.call(400, "PUT", "/v1/sandboxes/web/network", map[string]any{"mode": "maybe"}, nil)
	r.call(200, "GET", "/v1/sandboxes/web/network", nil, &p)
	if p.Mode != api.NetAllow {
		r.t.Errorf("%+v", p)
	}
	if got := r.call(200, "GET", "/v1/sandboxes/web/network/stats", nil, nil); !strings.Contains(got, `"peers":[`) {
		r.t.Error(got)
	}
	if got := r.call(200, "GET", "/v1/sandboxes/web/network/log", nil, nil); !strings.HasPrefix(got, ": begin") {
		r.t.Error(got)
	}
}

func published(r *rig) {
	var p api.Port
	r.call(201, "POST", "/v1/sandboxes/web/ports", map[string]any{"guest_port": 8080}, &p)
	if p.HostPort == 0 || p.Address != api.DefaultAddress {
		r.t.Errorf("%+v", p)
	}
	r.call(409, "POST", "/v1/sandboxes/web/ports", map[string]any{"guest_port": 8081, "host_port": p.HostPort}, nil)
	var list struct{ Ports []api.Port }
	if r.call(200, "GET", "/v1/sandboxes/web/ports", nil, &list); len(list.Ports) != 1 {
		r.t.Errorf("%+v", list)
	}
	if got := r.call(504, "POST", "/v1/sandboxes/web/ports/wait", map[string]any{"port": 1, "timeout_ms": 50}, nil); !strings.Contains(got, `"code":"timeout"`) {
		r.t.Error(got)
	}
	r.call(200, "DELETE", "/v1/sandboxes/web/ports?guest_port=8080", nil, &p)
	r.call(404, "DELETE", "/v1/sandboxes/web/ports?guest_port=8080", nil, nil)
	r.call(400, "DELETE", "/v1/sandboxes/web/ports?guest_port=0", nil, nil)
	r.call(400, "DELETE", "/v1/sandboxes/web/ports", nil, nil)
}

func watches(r *rig) {
	var s api.Stats
	if r.call(200, "GET", "/v1/sandboxes/web/stats", nil, &s); s.VM != "web" || s.Guest == nil {
		r.t.Errorf("%+v", s)
	}
	r.call(200, "GET", "/v1/sandboxes/web/logs?kind=console", nil, nil)
	r.call(400, "GET", "/v1/sandboxes/web/logs?kind=other", nil, nil)
	if got := r.call(200, "GET", "/v1/sandboxes/web/events", nil, nil); !strings.Contains(got, "event: event\ndata: {") || !strings.Contains(got, `"state":"running"`) {
		r.t.Error(got)
	}
	if got := r.call(200, "GET", "/v1/events?since=2999-01-01T00:00:00Z", nil, nil); strings.Contains(got, "event: event") {
		r.t.Error(got)
	}
}

func imagesOf(r *rig) {
	if got := r.call(200, "POST", "/v1/images", map[string]any{"refresh": true}, nil, "Accept", "text/event-stream"); !strings.Contains(got, "event: progress") || !strings.Contains(got, "event: result") {
		r.t.Error(got)
	}
	var img api.Image
	r.call(200, "POST", "/v1/images", map[string]any{"name": "more", "include": []string{"jq"}}, &img)
	var list struct{ Images []api.Image }
	if r.call(200, "GET", "/v1/images", nil, &list); len(list.Images) < 2 {
		r.t.Errorf("%+v", list)
	}
	r.call(200, "GET", "/v1/images/debian", nil, &img)
	r.call(404, "GET", "/v1/images/absent", nil, nil)
	r.call(204, "DELETE", "/v1/images/more", nil, nil)
	r.call(404, "POST", "/v1/images", map[string]any{"name": "nobody-makes-it"}, nil)
}

func ofServer(r *rig) {
	got := r.call(200, "GET", "/v1/metrics", nil, nil)
	for _, want := range []string{`smolvm_vms{state="running"} 1`, "# TYPE smolvm_http_requests_total counter", "smolvm_http_requests_running 1"} {
		if !strings.Contains(got, want) {
			r.t.Errorf("%s is missing in %s", want, got)
		}
	}
	r.call(200, "GET", "/v1/health", nil, nil)
	r.call(200, "GET", "/openapi.json", nil, nil)
	r.call(400, "POST", "/v1/sandboxes", `{"id":`, nil)
	r.call(413, "POST", "/v1/sandboxes", `{"id":"`+strings.Repeat("a", 2<<20)+`"}`, nil)
}

// atOnce: 200 commands at once each get their own answer.
func atOnce(r *rig) {
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(r.t.Context(), "POST", "http://x/v1/sandboxes/web/exec", strings.NewReader(`{"argv":["true"]}`))
			req.Header.Set("Content-Type", "application/json")
			res, err := r.client.Do(req)
			if err != nil {
				r.t.Error(err)
				return
			}
			defer func() { _ = res.Body.Close() }()
			if b, _ := io.ReadAll(res.Body); res.StatusCode != 200 {
				r.t.Errorf("%d %s", res.StatusCode, b)
			}
		})
	}
	wg.Wait()
}

// TestEndlessBody: what is too long is refused while it still comes.
func TestEndlessBody(t *testing.T) {
	r := newRig(t)
	pr, pw := io.Pipe()
	go func() {
		_, err := pw.Write([]byte(`{"id":"`))
		for err == nil {
			_, err = pw.Write(bytes.Repeat([]byte("a"), 64<<10))
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "POST", "http://x/v1/sandboxes", pr)
	req.Header.Set("Content-Type", "application/json")
	res, err := r.client.Do(req)
	_ = pr.Close()
	if err != nil {
		if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) || ctx.Err() != nil {
			t.Error(err)
		}
		return // the server closed its end before the client looked at the answer
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Error(res.Status)
	}
}

// TestStop: a stream without an end is told that the server stops, and does not hold it up; what is short goes to its end.
func TestStop(t *testing.T) {
	r := newRig(t)
	res := r.send("GET", "/v1/events?follow=true", nil)
	defer func() { _ = res.Body.Close() }()
	in := bufio.NewReader(res.Body)
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, ":") {
		t.Fatalf("%q, %v", line, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	begun := time.Now()
	if err := r.s.Shutdown(ctx); err != nil || time.Since(begun) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
	rest, err := io.ReadAll(in)
	if err != nil || !strings.Contains(string(rest), "event: error") || !strings.Contains(string(rest), "stopping") {
		t.Errorf("%q, %v", rest, err)
	}
}

// TestKilled: what a killed server leaves is taken over, and its VMs live on.
func TestKilled(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	socket := filepath.Join(home, "s.sock")
	client := unixClient(socket)
	r := &rig{t: t, client: client, home: home}
	serve := func() (*exec.Cmd, string) {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
		cmd.Env = append(os.Environ(), serveVar+"="+socket, homeVar+"="+home, "SMOLVM_TEST_VERDICTS="+filepath.Join(t.TempDir(), "v"))
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			_ = cmd.Wait()
			return cmd, said.String()
		}
		return cmd, ""
	}
	first, said := serve()
	if said != "" {
		t.Fatal(said)
	}
	r.call(201, "POST", "/v1/sandboxes", map[string]any{"id": "web", "disk_mib": 256, "start": true}, nil)
	if _, said := serve(); !strings.Contains(said, "a server answers") {
		t.Errorf("a second one at the same socket: %q", said)
	}
	_ = first.Process.Kill()
	_ = first.Wait()
	client.CloseIdleConnections()
	second, said := serve()
	if said != "" {
		t.Fatal(said)
	}
	var box api.Sandbox
	if r.call(200, "GET", "/v1/sandboxes/web", nil, &box); box.State != api.StateRunning {
		t.Errorf("%+v", box)
	}
	r.call(204, "DELETE", "/v1/sandboxes/web?force=true", nil, nil)
	_ = second.Process.Signal(syscall.SIGTERM)
	if err := second.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket stayed")
	}
	if held, err := lock.Held(filepath.Join(home, "locks", "vm-web")); err != nil || held {
		t.Errorf("the VM's lock: %t, %v", held, err)
	}
}

// TestNoWebSocket: what is no proper request for one is told as every other failure.
func TestNoWebSocket(t *testing.T) {
	r := newRig(t)
	r.call(201, "POST", "/v1/sandboxes", map[string]any{"id": "web", "disk_mib": 256, "start": true}, nil)
	const path = "/v1/sandboxes/web/exec/ws"
	for _, tt := range []struct {
		status  int
		headers []string
	}{
		{400, nil},
		{400, []string{"Upgrade", "websocket", "Connection", "Upgrade"}},
		{426, []string{"Upgrade", "websocket", "Sec-WebSocket-Protocol", "smolvm.v1"}},
		{400, []string{"Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Protocol", "smolvm.v1", "Sec-WebSocket-Version", "13"}},
	} {
		var p struct {
			Code   string
			Status int
		}
		if r.call(tt.status, "GET", path, nil, &p, tt.headers...); p.Code != "invalid" || p.Status != tt.status {
			t.Errorf("%v: %+v", tt.headers, p)
		}
	}
}

// TestRestarted: a connection that was kept to a VM's former life is none to its next one.
func TestRestarted(t *testing.T) {
	r := newRig(t)
	r.call(201, "POST", "/v1/sandboxes", map[string]any{"id": "web", "disk_mib": 256, "start": true}, nil)
	for range 3 {
		r.call(200, "GET", of("/stat", "/"), nil, nil)
		r.call(200, "POST", "/v1/sandboxes/web/stop", map[string]any{"kill": true}, nil)
		r.call(409, "GET", of("/tar", t.TempDir()), nil, nil)
		r.call(200, "POST", "/v1/sandboxes/web/start", nil, nil)
		r.call(200, "GET", of("/list", t.TempDir()), nil, nil)
	}
}
