package gate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/server/web"
)

// log is a writer that several may write to.
type log struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.String()
}

// behind is a server with a gate whose patience is short; everybody is a process of this host.
func behind(t *testing.T, h http.HandlerFunc) (*httptest.Server, *log) {
	t.Helper()
	l := &log{}
	g := Gate{Counts: &Counts{}, Log: slog.New(slog.NewTextHandler(l, nil)), Stall: 200 * time.Millisecond, Stopping: make(chan struct{})}
	s := httptest.NewUnstartedServer(g.Wrap(h))
	s.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return web.WithPeer(ctx, web.Peer{PID: 7})
	}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.Start()
	t.Cleanup(s.Close)
	return s, l
}

func post(t *testing.T, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer hidden-token")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// TestPatience: the time for a body's pieces is no time for the answer. The second request is on the same connection.
func TestPatience(t *testing.T) {
	s, _ := behind(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		time.Sleep(600 * time.Millisecond)
		if r.Context().Err() != nil {
			t.Error("the request ended with the time for its body")
		}
		_, _ = w.Write(b)
		time.Sleep(600 * time.Millisecond)
	})
	for range 2 {
		if code, b := post(t, s.URL, "body"); code != http.StatusOK || b != "body" {
			t.Errorf("%d %q", code, b)
		}
	}
}

// TestStalledBody: a client that sends half of a body is given up.
func TestStalledBody(t *testing.T) {
	failed := make(chan error, 1)
	s, _ := behind(t, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		failed <- err
	})
	c := raw(t, s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
	defer func() { _ = c.Close() }()
	select {
	case err := <-failed:
		if err == nil {
			t.Error("half a body was a whole one")
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for ever")
	}
}

// TestStalledReader: a client that asks and does not read is given up, and its handler ends.
func TestStalledReader(t *testing.T) {
	ended := make(chan error, 1)
	s, _ := behind(t, func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				ended <- err
				return
			}
		}
	})
	c := raw(t, s, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	defer func() { _ = c.Close() }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(20 * time.Second):
		t.Error("it writes for ever")
	}
}

// TestStall: a client of this host may take its time; one over TCP may not.
func TestStall(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	if got := (Gate{}).stall(r.WithContext(web.WithPeer(t.Context(), web.Peer{Remote: true}))); got != DefaultStall {
		t.Errorf("over TCP %s", got)
	}
	if got := (Gate{}).stall(r.WithContext(web.WithPeer(t.Context(), web.Peer{PID: 7}))); got != LocalStall {
		t.Errorf("of this host %s", got)
	}
}

func raw(t *testing.T, s *httptest.Server, request string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPanic: a fault of ours is told as one, and logged.
func TestPanic(t *testing.T) {
	s, l := behind(t, func(http.ResponseWriter, *http.Request) { panic("oops") })
	code, b := post(t, s.URL, "")
	var p web.Problem
	if err := json.Unmarshal([]byte(b), &p); err != nil || code != http.StatusInternalServerError || p.Code != "internal" || strings.Contains(b, "oops") {
		t.Errorf("%d %s", code, b)
	}
	if !strings.Contains(l.String(), "oops") {
		t.Errorf("the log: %s", l)
	}
}

// TestLog: who asked for what, and nothing that may be a secret.
func TestLog(t *testing.T) {
	s, l := behind(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	if code, _ := post(t, s.URL+"/v1/x?token=hidden-query", "hidden-body"); code != http.StatusTeapot {
		t.Error(code)
	}
	for begun := time.Now(); !strings.Contains(l.String(), "msg=request") && time.Since(begun) < 5*time.Second; {
		time.Sleep(10 * time.Millisecond)
	}
	got := l.String()
	for _, want := range []string{"method=POST", "path=/v1/x", "status=418", "pid=7"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %s", want, got)
		}
	}
	if strings.Contains(got, "hidden") {
		t.Errorf("a secret is in %s", got)
	}
}

// TestTooMany: streams are refused before other requests are.
func TestTooMany(t *testing.T) {
	g := Gate{Counts: &Counts{}, Log: slog.New(slog.DiscardHandler)}
	h := g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	try := func(accept string) int {
		r := httptest.NewRequestWithContext(web.WithPeer(t.Context(), web.Peer{}), http.MethodGet, "/", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	g.Counts.Streams.Store(MaxStreams)
	if a, b := try(web.EventStream), try("*/*"); a != http.StatusTooManyRequests || b != http.StatusOK {
		t.Errorf("with many streams: a stream %d, another request %d", a, b)
	}
	g.Counts.Streams.Store(0)
	g.Counts.Running.Store(MaxRequests)
	if got := try("*/*"); got != http.StatusTooManyRequests {
		t.Errorf("with many requests: %d", got)
	}
	g.Counts.Running.Store(0)
	if got := try("*/*"); got != http.StatusOK || g.Counts.Running.Load() != 0 || g.Counts.Streams.Load() != 0 {
		t.Errorf("afterwards: %d, %d, %d", got, g.Counts.Running.Load(), g.Counts.Streams.Load())
	}
}

const secret = "0123456789abcdef0123456789abcdef"

// TestRemote: over TCP the token decides, and nobody's page asks for its reader.
func TestRemote(t *testing.T) {
	named := func(h string) bool { return h == "localhost" || h == "vm.example.com" }
	type header = map[string]string
	right := "Bearer " + secret
	for _, tt := range []struct {
		name, host, path string
		header           header
		status           int
	}{
		{"right", "127.0.0.1:80", "/v1/x", header{"Authorization": right}, 200},
		{"right, by name", "localhost", "/v1/x", header{"Authorization": right}, 200},
		{"right, by the certificate's name", "VM.example.com.:80", "/v1/x", header{"Authorization": "bearer " + secret}, 200},
		{"right, by IPv6", "[::1]:80", "/v1/x", header{"Authorization": right}, 200},
		{"right, of its own page", "localhost:80", "/v1/x", header{"Authorization": right, "Origin": "http://localhost:80", "Sec-Fetch-Site": "same-origin"}, 200},
		{"none", "localhost", "/v1/x", nil, 401},
		{"empty", "localhost", "/v1/x", header{"Authorization": "Bearer "}, 401},
		{"wrong", "localhost", "/v1/x", header{"Authorization": right + "x"}, 401},
		{"beginning", "localhost", "/v1/x", header{"Authorization": "Bearer " + secret[:31]}, 401},
		{"basic", "localhost", "/v1/x", header{"Authorization": "Basic " + secret}, 401},
		{"in the query", "localhost", "/v1/x?token=" + secret, nil, 401},
		{"rebound name", "evil.example", "/v1/x", header{"Authorization": right}, 403},
		{"rebound name, open page", "evil.example", "/docs", nil, 403},
		{"another site", "localhost", "/v1/x", header{"Authorization": right, "Origin": "http://evil.example"}, 403},
		{"another port of this host", "localhost:80", "/v1/x", header{"Authorization": right, "Origin": "http://localhost:81"}, 403},
		{"another scheme", "localhost:80", "/v1/x", header{"Authorization": right, "Origin": "https://localhost:80"}, 403},
		{"a file", "localhost", "/v1/x", header{"Authorization": right, "Origin": "null"}, 403},
		{"fetched by another site", "localhost", "/docs", header{"Sec-Fetch-Site": "cross-site"}, 403},
		{"open page", "localhost", "/docs", nil, 200},
		{"below an open page", "localhost", "/assets/a.js", nil, 200},
		{"beside an open page", "localhost", "/docsx", nil, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := NewRemote(slog.New(slog.DiscardHandler), func() (string, error) { return secret, nil }, named, "/docs", "/assets/")
			seen := false
			h := Gate{Remote: m, Counts: &Counts{}, Log: slog.New(slog.DiscardHandler)}.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen = true }))
			r := httptest.NewRequestWithContext(web.WithPeer(t.Context(), web.Peer{Remote: true}), http.MethodGet, tt.path, nil)
			r.Host = tt.host
			for k, v := range tt.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.status || seen != (tt.status == 200) {
				t.Errorf("%d %s, seen %t", w.Code, w.Body, seen)
			}
			if tt.status == 401 && !strings.Contains(w.Header().Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("%v", w.Header())
			}
		})
	}
}

// TestNobody: without a token in force nothing is let in, least of all an empty one.
func TestNobody(t *testing.T) {
	for name, m := range map[string]*Remote{
		"none":    nil,
		"empty":   NewRemote(slog.New(slog.DiscardHandler), func() (string, error) { return "", nil }, func(string) bool { return true }),
		"failing": NewRemote(slog.New(slog.DiscardHandler), func() (string, error) { return "", errors.New("open /secret-place/token: no such file") }, func(string) bool { return true }),
	} {
		h := Gate{Remote: m, Counts: &Counts{}, Log: slog.New(slog.DiscardHandler)}.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Errorf("%s: let in", name) }))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/x", nil) // who is not known is remote
		r.Header.Set("Authorization", "Bearer ")
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); strings.Contains(w.Body.String(), "secret-place") {
			t.Errorf("%s: %s", name, w.Body)
		}
	}
}

// TestGuessing: wrong tokens wait and then get no answer; the right one never waits.
func TestGuessing(t *testing.T) {
	m := NewRemote(slog.New(slog.DiscardHandler), func() (string, error) { return secret, nil }, func(string) bool { return true })
	ask := func(ctx context.Context, token string) int {
		h := Gate{Remote: m, Counts: &Counts{}, Log: slog.New(slog.DiscardHandler)}.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		r := httptest.NewRequestWithContext(web.WithPeer(ctx, web.Peer{Remote: true}), http.MethodGet, "/v1/x", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[int]int{}
	for range 100 {
		wg.Go(func() {
			code := ask(ctx, "wrong")
			mu.Lock()
			defer mu.Unlock()
			got[code]++
		})
	}
	wg.Wait()
	if got[http.StatusUnauthorized] > wrongAtOnce+2*wrongPerSecond || got[http.StatusTooManyRequests] < 50 {
		t.Errorf("100 wrong ones: %v", got)
	}
	begun := time.Now()
	if code := ask(t.Context(), secret); code != http.StatusOK || time.Since(begun) > time.Second {
		t.Errorf("the right one: %d after %s", code, time.Since(begun))
	}
}
