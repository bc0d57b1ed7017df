package vm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// server is `smolvm serve` at a socket, with a client.
type server struct {
	*background
	t      *testing.T
	socket string
	http   *http.Client
}

func (c cli) serve(t *testing.T, socket string, args ...string) *server {
	t.Helper()
	s := &server{background: c.background(t, append([]string{"serve", "--socket", socket}, args...)...), t: t, socket: socket}
	var told struct{ Socket string }
	decode(t, s.line(t), &told)
	if told.Socket != socket {
		t.Fatalf("it says %q", told.Socket)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	s.http = &http.Client{Transport: transport}
	return s
}

func (s *server) request(method, path string, body io.Reader) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://smolvm/v1"+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

// call wants a status and returns the body.
func (s *server) call(status int, method, path, body string) string {
	s.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	res := s.request(method, path, in)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != status {
		s.t.Fatalf("%s %s: %s %v %s", method, path, res.Status, err, brief(string(b)))
	}
	return string(b)
}

// TestVMCoreServe: the HTTP API with a real VM, and what can happen to its server and its clients.
func TestVMCoreServe(t *testing.T) {
	c := program(t)
	socket := filepath.Join(t.TempDir(), "api", "s.sock")
	s := c.serve(t, socket)
	id := c.name(t, "serve")
	at := "/sandboxes/" + id
	var box api.Sandbox
	decode(t, s.call(201, "POST", "/sandboxes", `{"id":"`+id+`","start":true,"network":{"mode":"none"},"env":{"SECRET":"hidden-value"}}`), &box)
	if box.State != api.StateRunning {
		t.Fatalf("%+v", box)
	}
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if strings.Contains(s.call(200, "GET", "/sandboxes?all=true", ""), "hidden-value") {
		t.Error("a list shows values of variables")
	}
	t.Run("long command", func(t *testing.T) { // longer than any deadline for a request's body
		var r api.CommandResult
		decode(t, s.call(200, "POST", at+"/exec", `{"script":"sleep 7; echo $SECRET"}`), &r)
		if r.Stdout != "hidden-value\n" || r.DurationMs < 6000 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("files", func(t *testing.T) { serveFiles(t, s, at) })
	t.Run("at once", func(t *testing.T) {
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() { s.call(200, "GET", at, "") })
		}
		all.Wait()
	})
	whole := t // the next server outlives the part that starts it
	t.Run("killed", func(t *testing.T) {
		decode(t, s.call(201, "POST", at+"/processes", `{"script":"while :; do echo tick; sleep 1; done"}`), &struct{}{})
		s.kill(t)
		s = c.serve(whole, socket)
		var list api.ProcessList
		decode(t, s.call(200, "GET", at+"/processes", ""), &list)
		if !slices.ContainsFunc(list.Processes, func(p api.Process) bool { return strings.Contains(p.Command, "tick") && p.Result == nil }) {
			t.Errorf("the command did not live on: %+v", list)
		}
		if r := c.run(t, "serve", "--socket", socket); r.code == 0 || !strings.Contains(r.stderr, "a server answers") {
			t.Errorf("a second server: %+v", r)
		}
	})
	t.Run("stopped", func(t *testing.T) { serveStopped(t, s) })
	if state := c.inspect(t, id).State; state != api.StateRunning {
		t.Errorf("after its servers the VM is %s", state)
	}
}

func serveFiles(t *testing.T, s *server, at string) {
	content := make([]byte, 8<<20)
	_, _ = rand.Read(content)
	res := s.request("PUT", at+"/files/content?path=/root/big&mode=0600", bytes.NewReader(content))
	_ = res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		t.Fatal(res.Status)
	}
	if got := s.call(200, "GET", at+"/files/content?path=/root/big", ""); got != string(content) {
		t.Errorf("%d bytes came back", len(got))
	}
	// A client that reads a little and goes leaves nothing behind that holds up others.
	res = s.request("GET", at+"/files/content?path=/root/big", nil)
	_, _ = io.ReadFull(res.Body, make([]byte, 1000))
	_ = res.Body.Close()
	var info api.FileInfo
	decode(t, s.call(200, "GET", at+"/files/stat?path=/root/big", ""), &info)
	if info.Size != int64(len(content)) || info.Mode != 0o600 {
		t.Errorf("%+v", info)
	}
	if got := s.call(404, "GET", at+"/files/content?path=/root/absent", ""); !strings.Contains(got, `"not_found"`) {
		t.Error(got)
	}
}

// serveStopped ends the server while a stream is under way, and a short command too.
func serveStopped(t *testing.T, s *server) {
	res := s.request("GET", "/events?follow=true", nil)
	defer func() { _ = res.Body.Close() }()
	in := bufio.NewReader(res.Body)
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, ":") {
		t.Fatalf("%q, %v", line, err)
	}
	begun := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(in)
	if err != nil || !strings.Contains(string(rest), "event: error") {
		t.Errorf("the stream ends with %q, %v", brief(string(rest)), err)
	}
	<-s.ended
	if took := time.Since(begun); took > 8*time.Second || s.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("%s after %s", s.cmd.ProcessState, took)
	}
	if _, err := os.Lstat(s.socket); err == nil {
		t.Error("the socket stayed")
	}
}

// TestVMServeToken: the program over TCP, with the token that it shows.
func TestVMServeToken(t *testing.T) {
	c := program(t)
	b := c.background(t, "serve", "--listen", "127.0.0.1:0")
	var told struct{ URL string }
	if err := json.Unmarshal([]byte(b.line(t)), &told); err != nil {
		t.Fatal(err)
	}
	status := func(token string) int {
		req, err := http.NewRequestWithContext(t.Context(), "GET", told.URL+"/v1/sandboxes", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	old := strings.TrimSpace(c.ok(t, "token"))
	if a, b := status(old), status("wrong"); a != 200 || b != 401 {
		t.Errorf("right %d, wrong %d", a, b)
	}
	fresh := strings.TrimSpace(c.ok(t, "token", "--rotate"))
	if a, b := status(old), status(fresh); a != 401 || b != 200 {
		t.Errorf("after it was rotated: old %d, new %d", a, b)
	}
	for _, args := range [][]string{{"serve", "--listen", "0.0.0.0:0"}, {"serve", "--tls-cert", "x"}, {"serve", "--listen", "127.0.0.1:0", "--allow-path", "/"}} {
		if r := c.run(t, args...); r.code != 2 || !strings.Contains(r.stderr, "try: ") {
			t.Errorf("%v: %+v", args, r)
		}
	}
}
