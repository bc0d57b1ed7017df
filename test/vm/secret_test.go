package vm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
)

// wayOut is a proxy of this host which leads every name to one port of it.
func wayOut(t *testing.T, port int) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
			return
		}
		up, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		down, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, buffered); _ = up.Close() }()
		go func() { _, _ = io.Copy(down, up); _ = down.Close() }()
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// holds says whether one of the texts is in what r gives.
func holds(r io.Reader, texts ...string) bool {
	const most = 128 // of a text
	buf := make([]byte, 0, 4<<20+most)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		for _, text := range texts {
			if bytes.Contains(buf, []byte(text)) {
				return true
			}
		}
		if err != nil {
			return false
		}
		if len(buf) > most {
			buf = append(buf[:0], buf[len(buf)-most:]...)
		}
	}
}

// memoryHolds searches all memory that a process can write.
func memoryHolds(t *testing.T, pid int, texts ...string) bool {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	lines := bufio.NewScanner(bytes.NewReader(maps))
	for lines.Scan() {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err == nil && strings.HasPrefix(mode, "rw") {
			if holds(io.NewSectionReader(mem, from, to-from), texts...) {
				return true
			}
		}
	}
	return false
}

// filesHold names a file below a directory that has one of the texts.
func filesHold(t *testing.T, dir string, texts ...string) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil //nolint:nilerr // it went meanwhile
		}
		f, err := os.Open(name)
		if err != nil {
			return nil //nolint:nilerr // the same
		}
		defer func() { _ = f.Close() }()
		if holds(f, texts...) {
			found = name
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return found
}

// TestVMSecret: a secret reaches its host, and is nowhere else: not in the guest's memory, not on its disk, not in our files, not in
// what processes show of themselves.
func TestVMSecret(t *testing.T) {
	c := program(t)
	// They are put together here, so that no text of this program has them whole.
	first, second := strings.Join([]string{"sk", "first", "Zq7XvVALUEw2Kp9"}, "-"), strings.Join([]string{"sk", "other", "Rm4TyVALUEb8Lc1"}, "-")
	seen := make(chan string, 100)
	root := newAuthority(t)
	port := root.serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Host + " " + r.Header.Get("X-Api-Key")
		w.Header().Set("X-Echo", r.Header.Get("X-Api-Key"))
		_, _ = fmt.Fprintf(w, "you said %s.", r.Header.Get("X-Api-Key"))
	}, "api.example.com", "other.example.com")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "root.pem"), root.pem(), 0o600)
	key := filepath.Join(dir, "key")
	write(t, key, []byte(first+"\n"), 0o600)
	t.Setenv("SSL_CERT_FILE", filepath.Join(dir, "root.pem"))
	t.Setenv("HTTPS_PROXY", wayOut(t, port))
	t.Setenv("NO_PROXY", "")
	id := c.vm(t, "secret", "--disk", "512", "--memory", "512", "--secret", "API_KEY=file:"+key+"@api.example.com;prefix=sk-", "--allow", "api.example.com", "--allow", "other.example.com")
	placeholder := strings.TrimSpace(c.sh(t, id, "echo $API_KEY"))
	if len(placeholder) != len(first) || !strings.HasPrefix(placeholder, "sk-") {
		t.Fatalf("the guest has %q", placeholder)
	}
	ask := func(host string) result {
		return c.exec(t, id, "sh", "-c", `curl -sS -i -m 60 -H "X-Api-Key: $API_KEY" https://`+host+`/a?b=c`)
	}
	reaches := func(when, value string) {
		t.Helper()
		got := ask("api.example.com")
		if !strings.Contains(got.stdout, "you said "+placeholder+".") || !strings.Contains(strings.ToLower(got.stdout), "x-echo: "+strings.ToLower(placeholder)) {
			t.Errorf("%s: %d %s%s", when, got.code, got.stdout, got.stderr)
			return
		}
		if at := <-seen; at != "api.example.com "+value {
			t.Errorf("%s: the server saw %q", when, at)
		}
	}
	reaches("fresh", first)
	if got := ask("other.example.com"); !strings.Contains(got.stdout, " 403") || !strings.Contains(got.stdout, "API_KEY") {
		t.Errorf("another host: %s%s", got.stdout, got.stderr)
	}
	c.sh(t, id, `echo "$API_KEY" >/root/kept; env >/root/env; sync`)

	box := c.inspect(t, id)
	write(t, key, []byte(second+"\n"), 0o600)
	c.ok(t, "secret", "set", id, "API_KEY")
	reaches("rotated", second)
	if err := syscall.Kill(gatewayOf(t, box), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	eventually(t, 30*time.Second, "another gateway", func() bool { return strings.Contains(ask("api.example.com").stdout, "you said") })
	for len(seen) > 0 {
		<-seen
	}
	reaches("with another gateway", second)

	if os.Geteuid() == 0 { // others may not look into the monitor
		if memoryHolds(t, box.VMMPID, first, second) {
			t.Error("the guest's memory has a value")
		}
		if !memoryHolds(t, box.VMMPID, placeholder) {
			t.Error("the guest's memory does not have the placeholder: the search is worth nothing")
		}
	}
	processesHold(t, first, second)
	home := filepath.Dir(filepath.Dir(box.Dir))
	if name := filesHold(t, box.Dir, first, second); name != "" {
		t.Errorf("%s has a value", name)
	}
	if name := filesHold(t, filepath.Join(home, "locks"), first, second); name != "" {
		t.Errorf("%s has a value", name)
	}
	log := c.ok(t, "net", "log", "--json", id)
	if !strings.Contains(log, `"secrets":["API_KEY"]`) && !strings.Contains(log, `"API_KEY"`) || strings.Contains(log, "VALUE") {
		t.Errorf("the log: %s", log)
	}

	// The next start asks the source again, and says so when it is missing; the placeholder stays.
	c.ok(t, "stop", id)
	if name := filesHold(t, box.Dir, first, second); name != "" {
		t.Errorf("%s has a value", name)
	}
	if filesHold(t, box.Dir, placeholder) == "" {
		t.Error("no file has the placeholder: the search is worth nothing")
	}
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	c.run(t, "start", id).says(t, "secret API_KEY: its source file:"+key+" is missing")
	if box := c.inspect(t, id); box.State != api.StateStopped {
		t.Errorf("it is %s", box.State)
	}
	write(t, key, []byte(first+"\n"), 0o600)
	c.ok(t, "start", id)
	reaches("after a restart", first)
}

// processesHold reports processes whose arguments or environment have one of the texts.
func processesHold(t *testing.T, texts ...string) {
	t.Helper()
	for _, pattern := range []string{"/proc/[0-9]*/cmdline", "/proc/[0-9]*/environ"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil && !errors.Is(err, fs.ErrPermission) {
				continue // it has ended
			}
			for _, text := range texts {
				if bytes.Contains(b, []byte(text)) {
					t.Errorf("%s has a value", name)
				}
			}
		}
	}
}
