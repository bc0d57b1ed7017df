package proxy

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/network/secret"
)

// TestRequests: what a guest asks reaches the origin as it was, in the version that the guest speaks, and is recorded.
func TestRequests(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		for name := range req.Header {
			if strings.HasPrefix(name, "X-Forwarded") || name == "Forwarded" || name == "Via" {
				t.Errorf("the header %s was added", name)
			}
		}
		echoRequest(w, req)
	})
	for _, h2 := range []bool{false, true} {
		c := r.client(h2)
		proto := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]
		for _, target := range []string{"/", "/a/b%20c?x=1;y&%zz", "/caf%C3%A9/%2Fx", "/q?", "/(a)'!*"} {
			got := r.get(c, "https://"+site+target)
			if want := "GET " + site + " " + target + " 0"; got.status != 200 || got.body != want || got.header.Get("X-Proto") != proto {
				t.Errorf("%s %s: %d %q over %s", proto, target, got.status, got.body, got.header.Get("X-Proto"))
			}
		}
		big := make([]byte, 3<<20)
		_, _ = rand.Read(big)
		got, err := r.do(c, http.MethodPut, "https://"+site+"/up", strings.NewReader(string(big)))
		if err != nil || !strings.HasSuffix(got.body, fmt.Sprint(" ", len(big))) {
			t.Errorf("%s, a large body: %q, %v", proto, got.body, err)
		}
		n := r.found("the upload", func(n api.NetRecord) bool { return n.Method == http.MethodPut })
		if n.Kind != "http" || n.Verdict != "allow" || n.Status != 200 || n.BytesOut != int64(len(big)) || n.BytesIn != int64(len(got.body)) || n.Path != "/up" ||
			n.Name != site || n.Proto != "https" || n.HTTPVersion != strings.TrimSuffix(proto, ".0") || n.Addr != "198.51.100.1" || !strings.Contains(n.Rule, site) {
			t.Errorf("%+v", n)
		}
		r.mu.Lock()
		r.records = nil
		r.mu.Unlock()
	}
	n := len(r.sessions)
	if r.dialled > 2*n {
		t.Errorf("%d connections for %d of the guest's", r.dialled, n)
	}
}

// TestRules: a request that no rule allows is answered with what would allow it, and nothing is dialled for it.
func TestRules(t *testing.T) {
	r := newRig(t, echoRequest, site+"=GET,HEAD:/repos/**", site+"=POST:/hooks/*")
	for _, h2 := range []bool{false, true} {
		c := r.client(h2)
		for _, tt := range []struct {
			method, path string
			status       int
		}{
			{"GET", "/repos/a/b", 200},
			{"POST", "/hooks/x", 200},
			{"POST", "/repos/a", 403},
			{"GET", "/hooks/x", 403},
			{"DELETE", "/repos/a", 403},
			{"GET", "/repos/../admin", 403},
			{"GET", "/repos/%2e%2e/admin", 403},
			{"GET", "/repos//a", 403},
			{"GET", "/repos/a;b", 403},
			{"GET", "/repos/a%2f..%2f..%2fadmin", 403},
			{"GET", "/", 403},
		} {
			before := r.dialled
			got, err := r.do(c, tt.method, "https://"+site+tt.path, nil)
			if err != nil || got.status != tt.status {
				t.Errorf("%s %s: %d %q, %v", tt.method, tt.path, got.status, got.body, err)
			}
			if tt.status == 403 {
				if got.header.Get("Content-Type") != "application/json" || !strings.Contains(got.body, `"reason":`) || r.dialled != before {
					t.Errorf("%s %s: %q, dialled %d times", tt.method, tt.path, got.body, r.dialled-before)
				}
				n := r.found("the refusal", func(n api.NetRecord) bool { return n.Method == tt.method && n.Status == 403 })
				if n.Verdict != "deny" || n.Reason == "" {
					t.Errorf("%+v", n)
				}
			}
		}
	}
	got := r.get(r.client(false), "https://"+site+"/x")
	if !strings.Contains(got.body, "--allow "+site+"=GET:/x") {
		t.Errorf("what would allow it is not told: %s", got.body)
	}
}

// TestMalformed: what a server behind us could take for another request is refused.
func TestMalformed(t *testing.T) {
	r := newRig(t, echoRequest, site+"=GET:/ok/**")
	const end = " HTTP/1.1\r\nHost: " + site + "\r\nConnection: close\r\n"
	for _, tt := range []struct{ name, sni, text, want string }{
		{"allowed", site, "GET /ok/1" + end + "\r\n", "200"},
		{"no SNI", "", "GET /ok/1" + end + "\r\n", "200"},
		{"port in Host", site, "GET /ok/1 HTTP/1.1\r\nHost: SITE.example:443\r\nConnection: close\r\n\r\n", "200"},
		{"CONNECT", site, "CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\nConnection: close\r\n\r\n", "405"},
		{"TRACE", site, "TRACE /ok/1" + end + "\r\n", "405"},
		{"absolute form", site, "GET https://" + site + "/ok/1" + end + "\r\n", "400"},
		{"absolute form of another name", site, "GET http://other.example/ok/1" + end + "\r\n", "400"},
		{"asterisk", site, "OPTIONS *" + end + "\r\n", "400"},
		{"another Host", site, "GET /ok/1 HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n", "421"},
		{"another port", site, "GET /ok/1 HTTP/1.1\r\nHost: " + site + ":80\r\nConnection: close\r\n\r\n", "421"},
		{"two Hosts", site, "GET /ok/1 HTTP/1.1\r\nHost: " + site + "\r\nHost: other.example\r\nConnection: close\r\n\r\n", "400"},
		{"no Host", site, "GET /ok/1 HTTP/1.0\r\n\r\n", ""},
		{"another SNI", "other.example", "GET /ok/1" + end + "\r\n", "421"},
		{"method override", site, "GET /ok/1" + end + "X-HTTP-Method-Override: DELETE\r\n\r\n", "403"},
		{"method override with underscores", site, "GET /ok/1" + end + "X_HTTP_Method_Override: DELETE\r\n\r\n", "403"},
		{"path override", site, "GET /ok/1" + end + "X-Original-URL: /admin\r\n\r\n", "403"},
		{"a fragment", site, "GET /ok/1#x" + end + "\r\n", "403"},
		{"CL and TE", site, "POST /ok/1" + end + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n", "403"},
		{
			"what follows a request is one of its own", site,
			"GET /ok/1 HTTP/1.1\r\nHost: " + site + "\r\nContent-Length: 0\r\n\r\nGET /admin" + end + "\r\n", "200 403",
		},
		{"two lengths", site, "GET /ok/1" + end + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "400"},
		{"odd transfer encoding", site, "GET /ok/1" + end + "Transfer-Encoding: xchunked\r\n\r\n", "501"},
		{"a name with a space", site, "GET /ok/1" + end + "Transfer-Encoding : chunked\r\n\r\n", "400"},
		{"a long head", site, "GET /ok/1" + end + "X: " + strings.Repeat("x", maxHeader+8<<10) + "\r\n\r\n", "431"},
	} {
		if got := r.raw(tt.sni, tt.text); statuses(got) != tt.want && !(tt.want == "" && !strings.Contains(got, "200")) {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}

// TestPlain: on a connection without TLS the same rules hold.
func TestPlain(t *testing.T) {
	r := newRig(t, echoRequest, site+":80=GET:/ok")
	r.port(80)
	c := r.client(false)
	got := r.get(c, "http://"+site+"/no")
	if got.status != 403 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got = r.get(c, "http://"+site+"/ok"); got.status != 400 || !strings.Contains(got.body, "HTTPS") { // the origin speaks TLS, and we must not
		t.Errorf("%d %s", got.status, got.body)
	}
}

// TestUntrusted: an origin whose certificate this host does not trust, or that is not there, is told as what it is.
func TestUntrusted(t *testing.T) {
	r := newRig(t, echoRequest)
	foreign, _ := newIssuer(t)
	for name, issue := range map[string]func() (*tls.Certificate, error){
		"unknown authority": func() (*tls.Certificate, error) { return foreign.Leaf(site) },
		"another name":      func() (*tls.Certificate, error) { return r.issuer.Leaf("other.example") },
	} {
		leaf, err := issue()
		if err != nil {
			t.Fatal(err)
		}
		r.origin.TLS.Certificates = []tls.Certificate{*leaf}
		got := r.get(r.client(true), "https://"+site+"/")
		if got.status != 502 || !strings.Contains(got.body, "not trusted") {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		if n := r.found("the failure", func(n api.NetRecord) bool { return n.Status == 502 }); n.Verdict != "allow" || n.Reason == "" {
			t.Errorf("%s: %+v", name, n)
		}
	}
	r.origin.Close()
	if got := r.get(r.client(false), "https://"+site+"/"); got.status != 502 || !strings.Contains(got.body, "refused") {
		t.Errorf("nobody there: %d %s", got.status, got.body)
	}
}

// TestStreams: events come at once, trailers come, both directions go on together, also over HTTP/2.
func TestStreams(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			for n := range 2 {
				_, _ = fmt.Fprintf(w, "data: %d\n\n", n)
				_ = http.NewResponseController(w).Flush()
				if n == 0 {
					<-req.Context().Done()
				}
			}
		case "/echo":
			w.Header().Set("Trailer", "Grpc-Status")
			_ = http.NewResponseController(w).Flush()
			b := make([]byte, 100)
			for {
				n, err := req.Body.Read(b)
				_, _ = w.Write(b[:n])
				_ = http.NewResponseController(w).Flush()
				if err != nil {
					break
				}
			}
			w.Header().Set("Grpc-Status", "0")
			w.Header().Set(http.TrailerPrefix+"Late", req.Trailer.Get("Asked"))
		}
	})
	for _, h2 := range []bool{false, true} {
		c := r.client(h2)
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+site+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(res.Body).ReadString('\n')
		if line != "data: 0\n" || err != nil || time.Since(begin) > 5*time.Second {
			t.Errorf("the first event: %q, %v after %s", line, err, time.Since(begin))
		}
		cancel()
		_ = res.Body.Close()
		r.found("its end", func(n api.NetRecord) bool { return n.Path == "/events" && n.Status == 200 })
	}
	in, out := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+site+"/echo", in)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Te", "trailers")
	req.Trailer = http.Header{"Asked": nil}
	res, err := r.client(true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		text := fmt.Sprintf("message %d", n)
		_, _ = io.WriteString(out, text)
		b := make([]byte, len(text))
		if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != text {
			t.Fatalf("%q, %v", b, err)
		}
	}
	req.Trailer.Set("Asked", "yes")
	_ = out.Close()
	if _, err := io.ReadAll(res.Body); err != nil || res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Late") != "yes" {
		t.Errorf("trailers %v, %v", res.Trailer, err)
	}
	_ = res.Body.Close()
}

// TestWebSocket: the handshake is decided, then messages pass and are counted; no other protocol is switched to.
func TestWebSocket(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		if up := req.Header.Get("Upgrade"); up != "websocket" {
			_, _ = fmt.Fprintf(w, "upgrade %q", up)
			return
		}
		c, err := websocket.Accept(w, req, nil)
		if err != nil {
			t.Error(err)
			return
		}
		for {
			kind, b, err := c.Read(req.Context())
			if err != nil {
				return
			}
			if err := c.Write(req.Context(), kind, b); err != nil {
				return
			}
		}
	}, site+"=GET:/ws")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := r.client(false)
	client.Timeout = 0
	if _, res, err := websocket.Dial(ctx, "wss://"+site+"/other", &websocket.DialOptions{HTTPClient: client}); err == nil || res == nil || res.StatusCode != 403 { //nolint:bodyclose // it has none
		t.Errorf("a handshake that no rule allows: %v", err)
	}
	c, _, err := websocket.Dial(ctx, "wss://"+site+"/ws", &websocket.DialOptions{HTTPClient: client}) //nolint:bodyclose // it has none
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, b, err := c.Read(ctx); err != nil || string(b) != "hello" {
			t.Fatalf("%q, %v", b, err)
		}
	}
	// The policy changes below it.
	r.set(site + "=GET:/else")
	if _, _, err := c.Read(ctx); err == nil {
		t.Error("it goes on although no rule allows it any more")
	}
	n := r.found("its end", func(n api.NetRecord) bool { return n.Status == 101 })
	if n.BytesIn < 15 || n.BytesOut < 15 || n.Reason != policyChanged {
		t.Errorf("%+v", n)
	}
	r.set(site + "=GET:/ws")
	got := r.raw(site, "GET /ws HTTP/1.1\r\nHost: "+site+"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"+
		"GET /x HTTP/1.1\r\nHost: "+site+"\r\nConnection: close\r\n\r\n")
	if statuses(got) != "200 403" || !strings.Contains(got, `upgrade ""`) {
		t.Errorf("another protocol: %q", got)
	}
}

// TestPolicyChange: requests under way that a new policy does not allow are ended, others of the same connection go on.
func TestPolicyChange(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		_ = http.NewResponseController(w).Flush()
		for range 200 {
			select {
			case <-req.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
				_, _ = io.WriteString(w, ".")
				_ = http.NewResponseController(w).Flush()
			}
		}
	}, site)
	c := r.client(true)
	open := func(path string) io.ReadCloser {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+site+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return res.Body
	}
	stays, goes := open("/stays"), open("/goes")
	r.set(site + "=GET:/stays")
	if _, err := io.ReadAll(goes); err == nil {
		t.Error("it goes on")
	}
	if b, err := io.ReadAll(stays); err != nil || len(b) != 200 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	_, _ = stays.Close(), goes.Close()
	if n := r.found("it", func(n api.NetRecord) bool { return n.Path == "/goes" }); n.Verdict != "deny" || n.Reason != policyChanged {
		t.Errorf("%+v", n)
	}
}

// TestBounds: a rule's bounds of size and speed hold for what says its length and what does not.
func TestBounds(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/open" {
			_ = http.NewResponseController(w).Flush()
		} else {
			w.Header().Set("Content-Length", "100000")
		}
		for range 100 {
			if _, err := w.Write(make([]byte, 1000)); err != nil {
				return
			}
		}
	})
	change := func(size, pace int) {
		one := rule(t, site)
		one.MaxResponseKB, one.ResponseKBps = size, pace
		r.compile(api.NetworkPolicy{Mode: api.NetAllow, Rules: []api.NetworkRule{one}})
	}
	for _, h2 := range []bool{false, true} {
		c := r.client(h2)
		change(50, 0)
		if got := r.get(c, "https://"+site+"/told"); got.status != 403 {
			t.Errorf("too large, as it says: %d", got.status)
		}
		got, err := r.do(c, http.MethodGet, "https://"+site+"/open", nil)
		if err == nil || len(got.body) > 50000 {
			t.Errorf("too large, as it turns out: %d bytes, %v", len(got.body), err)
		}
		change(100, 0)
		if got := r.get(c, "https://"+site+"/told"); len(got.body) != 100000 {
			t.Errorf("just large enough: %d bytes", len(got.body))
		}
		change(0, 100)
		begin := time.Now()
		if got := r.get(c, "https://"+site+"/told"); len(got.body) != 100000 || time.Since(begin) < 500*time.Millisecond {
			t.Errorf("%d bytes in %s", len(got.body), time.Since(begin))
		}
	}
}

// TestContinue: a server that wants no body gets none.
func TestContinue(t *testing.T) {
	read := make(chan int64, 2)
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/no" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		n, _ := io.Copy(io.Discard, req.Body)
		read <- n
	})
	for _, h2 := range []bool{false, true} {
		c := r.client(h2)
		got, err := r.do(c, http.MethodPost, "https://"+site+"/no", strings.NewReader("body"), "Expect", "100-continue")
		if err != nil || got.status != http.StatusExpectationFailed {
			t.Errorf("%d, %v", got.status, err)
		}
		// Of HTTP/2, the standard library's client may send it all the same.
		if n := r.found("the one without", func(n api.NetRecord) bool { return n.Path == "/no" }); n.BytesOut != 0 && !h2 {
			t.Errorf("%+v", n)
		}
		if got, err = r.do(c, http.MethodPost, "https://"+site+"/yes", strings.NewReader("body"), "Expect", "100-continue"); err != nil || got.status != 200 || <-read != 4 {
			t.Errorf("%d, %v", got.status, err)
		}
	}
}

// TestSecrets: values are put in over TLS to their hosts only, and never come back.
func TestSecrets(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		w.Header().Set("X-Got", req.Header.Get("Authorization"))
		w.Header().Set("X-Encoding", req.Header.Get("Accept-Encoding"))
		_, _ = fmt.Fprintf(w, "got %s and %s", req.Header.Get("Authorization"), b)
	})
	one := secret.Secret{Name: "TOKEN", Placeholder: secret.Placeholder("", 32), Value: "value-of-the-secret-that-nobody-sees", Hosts: []string{site}}
	install := func(one secret.Secret) {
		set, err := secret.New([]secret.Secret{one})
		if err != nil {
			t.Fatal(err)
		}
		r.secrets.Store(set)
	}
	install(one)
	for _, h2 := range []bool{false, true} {
		c := r.client(h2)
		got := r.get(c, "https://"+site+"/", "Authorization", "Bearer "+one.Placeholder)
		if got.body != "got Bearer "+one.Placeholder+" and " || got.header.Get("X-Got") != "Bearer "+one.Placeholder || got.header.Get("X-Encoding") != "identity" {
			t.Errorf("%q %v", got.body, got.header)
		}
		n := r.found("it", func(n api.NetRecord) bool { return n.Kind == "http" && n.Status == 200 })
		if !slices.Equal(n.Secrets, []string{"TOKEN"}) || strings.Contains(fmt.Sprintf("%+v", n), one.Value) {
			t.Errorf("%+v", n)
		}
		for what, do := range map[string]func() (reply, error){
			"in a body": func() (reply, error) {
				return r.do(c, http.MethodPost, "https://"+site+"/", strings.NewReader("x "+one.Placeholder))
			},
			"in a path":    func() (reply, error) { return r.do(c, http.MethodGet, "https://"+site+"/"+one.Placeholder, nil) },
			"in the query": func() (reply, error) { return r.do(c, http.MethodGet, "https://"+site+"/?k="+one.Placeholder, nil) },
		} {
			if got, err := do(); err != nil || got.status != 403 || !strings.Contains(got.body, "TOKEN") {
				t.Errorf("%s: %d %s, %v", what, got.status, got.body, err)
			}
		}
	}
	other := one
	other.Hosts = []string{"other.example"}
	install(other)
	if got := r.get(r.client(true), "https://"+site+"/", "Authorization", "Bearer "+one.Placeholder); got.status != 403 {
		t.Errorf("at another host: %d %s", got.status, got.body)
	}
	install(one)
	r.port(80)
	if got := r.get(r.client(false), "http://"+site+"/", "Authorization", "Bearer "+one.Placeholder); got.status != 403 {
		t.Errorf("without TLS: %d %s", got.status, got.body)
	}
}
