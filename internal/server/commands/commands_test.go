package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/goleak"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/server/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// double stands for a guest.
type double struct {
	exec   func(ctx context.Context, req api.ExecRequest, streams lifecycle.ExecIO) (api.ExecResult, error)
	attach func(ctx context.Context, req api.AttachRequest, streams lifecycle.AttachIO) (api.AttachResult, error)
	killed chan string // signals, each as process/number/group
	over   chan struct{}

	mu    sync.Mutex
	sizes []api.TerminalSize
}

func newDouble() *double {
	return &double{killed: make(chan string, 100), over: make(chan struct{}, 100)}
}

func (d *double) Exec(ctx context.Context, req api.ExecRequest, streams lifecycle.ExecIO) (api.ExecResult, error) {
	return d.exec(ctx, req, streams)
}

func (d *double) StartDetached(context.Context, api.ExecRequest) (api.ProcessInfo, error) {
	return api.ProcessInfo{ExecID: "p1", PID: 7}, nil
}

func (d *double) Signal(_ context.Context, process string, n int, group bool) error {
	d.killed <- strings.Join([]string{process, text(n), text(group)}, "/")
	d.over <- struct{}{}
	return nil
}

func text(v any) string { b, _ := json.Marshal(v); return string(b) }

func (d *double) Resize(_ context.Context, _ string, size api.TerminalSize) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sizes = append(d.sizes, size)
	return nil
}

func (d *double) Processes(context.Context) ([]api.Process, error) { return nil, nil }

func (d *double) Process(_ context.Context, p string) (api.Process, error) {
	if p != "p1" {
		return api.Process{}, errdefs.NotFound.Errorf("there is no command %q", p)
	}
	return api.Process{ExecID: "p1"}, nil
}

func (d *double) Wait(ctx context.Context, _ string) (api.ExecResult, error) {
	<-ctx.Done()
	return api.ExecResult{}, context.Cause(ctx)
}

func (d *double) Attach(ctx context.Context, req api.AttachRequest, streams lifecycle.AttachIO) (api.AttachResult, error) {
	return d.attach(ctx, req, streams)
}

// front serves the routes on a unix socket, as a process of this host sees them.
type front struct {
	client *http.Client
	dial   func(ctx context.Context) (net.Conn, error)
	stop   func() // the server begins to stop
}

var once sync.Once //nolint:gochecknoglobals // huma's way of telling failures is one

func serve(t *testing.T, g Guest) front {
	t.Helper()
	once.Do(func() { huma.NewError = web.Malformed })
	mux := http.NewServeMux()
	config := huma.DefaultConfig("test", "1")
	config.CreateHooks = nil
	config.FieldsOptionalByDefault, config.RejectUnknownQueryParameters = true, true
	var sockets sync.WaitGroup
	Routes{Sockets: &sockets, On: func(_ context.Context, _ string, f func(Guest) error) error { return f(g) }}.Register(humago.New(mux, config))
	stopping := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r.WithContext(web.WithStop(r.Context(), stopping)))
	}))
	path := filepath.Join(t.TempDir(), "s")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Listener.Close()
	s.Listener = l
	s.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return web.WithPeer(ctx, web.Peer{PID: 1}) }
	s.Start()
	dial := func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", path) }
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.Close()
		sockets.Wait()
	})
	return front{&http.Client{Transport: transport}, dial, sync.OnceFunc(func() { close(stopping) })}
}

func (f front) post(ctx context.Context, path, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://x/v1/sandboxes/web/"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return f.client.Do(req)
}

func (f front) open(t *testing.T, path string) *websocket.Conn {
	t.Helper()
	ws, res, err := websocket.Dial(t.Context(), "ws://x/v1/sandboxes/web/"+path, &websocket.DialOptions{HTTPClient: f.client, Subprotocols: []string{api.StreamProtocol}})
	if err != nil {
		t.Fatal(err)
	}
	if res.Body != nil {
		_ = res.Body.Close()
	}
	ws.SetReadLimit(2 << 20)
	t.Cleanup(func() { _ = ws.CloseNow() })
	return ws
}

// forever is a command that starts when it is let and ends when it is killed.
func forever(d *double, start <-chan struct{}) {
	d.exec = func(ctx context.Context, _ api.ExecRequest, streams lifecycle.ExecIO) (api.ExecResult, error) {
		<-start
		streams.Started(api.ProcessInfo{ExecID: "p1"})
		select {
		case <-d.over:
			return api.ExecResult{ExitCode: 137}, nil
		case <-ctx.Done():
			return api.ExecResult{}, context.Cause(ctx)
		}
	}
}

func (d *double) wantKill(t *testing.T) {
	t.Helper()
	select {
	case k := <-d.killed:
		if k != "p1/9/true" {
			t.Errorf("signal %s", k)
		}
	case <-time.After(10 * time.Second):
		t.Error("the command was not killed")
	}
}

// TestClientGoes: its command is killed with all that it started, also when the client goes before the command runs.
func TestClientGoes(t *testing.T) {
	for _, path := range []string{"exec", "exec/stream", "exec/ws"} {
		for _, when := range []string{"before", "after"} {
			t.Run(path+" "+when, func(t *testing.T) {
				d := newDouble()
				start := make(chan struct{})
				asked := make(chan api.ExecRequest, 1)
				forever(d, start)
				exec := d.exec
				d.exec = func(ctx context.Context, req api.ExecRequest, streams lifecycle.ExecIO) (api.ExecResult, error) {
					asked <- req
					return exec(ctx, req, streams)
				}
				f := serve(t, d)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				if path == "exec/ws" {
					ws := f.open(t, path)
					if err := ws.Write(ctx, websocket.MessageText, []byte(`{"argv":["x"]}`)); err != nil {
						t.Fatal(err)
					}
					context.AfterFunc(ctx, func() { _ = ws.CloseNow() })
				} else {
					go func() {
						if res, err := f.post(ctx, path, `{"argv":["x"]}`); err == nil {
							_, _ = io.Copy(io.Discard, res.Body)
							_ = res.Body.Close()
						}
					}()
				}
				if req := <-asked; req.OnDisconnect != api.DisconnectKeep {
					t.Errorf("the supervisor was told %q", req.OnDisconnect)
				}
				if when == "after" {
					close(start)
					time.Sleep(50 * time.Millisecond)
					leave()
				} else {
					leave()
					time.Sleep(50 * time.Millisecond)
					close(start)
				}
				d.wantKill(t)
			})
		}
	}
}

// TestKept: a client that asks for it leaves its command running, and so does a server that stops.
func TestKept(t *testing.T) {
	for _, why := range []string{"asked", "stopping"} {
		for _, path := range []string{"exec/stream", "exec/ws"} {
			t.Run(why+" "+path, func(t *testing.T) {
				d := newDouble()
				start := make(chan struct{})
				close(start)
				forever(d, start)
				left := make(chan error, 1)
				exec := d.exec
				d.exec = func(ctx context.Context, req api.ExecRequest, streams lifecycle.ExecIO) (api.ExecResult, error) {
					res, err := exec(ctx, req, streams)
					left <- err
					return res, err
				}
				f := serve(t, d)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				command := `{"argv":["x"]}`
				if why == "asked" {
					command = `{"argv":["x"],"on_disconnect":"keep"}`
				}
				said := make(chan string, 1)
				go func() { said <- f.follow(ctx, t, path, command) }()
				time.Sleep(100 * time.Millisecond)
				if why == "asked" {
					leave()
				} else {
					f.stop()
				}
				if err := <-left; err == nil {
					t.Error("the command ended")
				}
				if text := <-said; why == "stopping" && !strings.Contains(text, `"code":"unavailable"`) {
					t.Errorf("the client heard %q", text)
				}
				if len(d.killed) != 0 {
					t.Error("the command was killed")
				}
			})
		}
	}
}

// follow runs a command and returns what is said of it.
func (f front) follow(ctx context.Context, t *testing.T, path, command string) string {
	t.Helper()
	var said bytes.Buffer
	if path != "exec/ws" {
		if res, err := f.post(ctx, path, command); err == nil {
			_, _ = io.Copy(&said, res.Body)
			_ = res.Body.Close()
		}
		return said.String()
	}
	ws := f.open(t, path)
	if err := ws.Write(ctx, websocket.MessageText, []byte(command)); err != nil {
		t.Error(err)
	}
	for {
		_, p, err := ws.Read(ctx)
		if err != nil {
			return said.String()
		}
		said.Write(p)
	}
}

// TestSocket: input, its end, sizes and signals reach the command in their order, and its output and end the client.
func TestSocket(t *testing.T) {
	d := newDouble()
	d.exec = func(_ context.Context, req api.ExecRequest, streams lifecycle.ExecIO) (api.ExecResult, error) {
		streams.Started(api.ProcessInfo{ExecID: "p1", PID: 3})
		b, err := io.ReadAll(streams.Stdin)
		if err != nil || !req.Stdin {
			return api.ExecResult{}, errdefs.Internal.Errorf("%w", err)
		}
		_, _ = streams.Stdout.Write(b)
		_, _ = streams.Stderr.Write([]byte("oops"))
		for len(d.killed) < 2 {
			time.Sleep(time.Millisecond)
		}
		return api.ExecResult{ExitCode: 3}, nil
	}
	ws := serve(t, d).open(t, "exec/ws")
	big := bytes.Repeat([]byte("x"), 900<<10)
	for _, m := range []any{`{"argv":["cat"],"stdin":true}`, []byte("hello "), big, `{"type":"resize","rows":3,"cols":4}`, `{"type":"signal","signal":"SIGUSR1"}`, `{"type":"signal","signal":"2","group":true}`, `{"type":"stdin_end"}`, []byte("late")} {
		kind, p := websocket.MessageText, []byte(nil)
		switch v := m.(type) {
		case string:
			p = []byte(v)
		case []byte:
			kind, p = websocket.MessageBinary, v
		}
		if err := ws.Write(t.Context(), kind, p); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs bytes.Buffer
	var said []string
	var err error
	for {
		var kind websocket.MessageType
		var p []byte
		if kind, p, err = ws.Read(t.Context()); err != nil {
			break
		}
		switch {
		case kind == websocket.MessageText:
			said = append(said, string(p))
		case p[0] == api.StreamStdout:
			out.Write(p[1:])
		case p[0] == api.StreamStderr:
			errs.Write(p[1:])
		}
	}
	if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("closed with %v", err)
	}
	if want := "hello " + string(big); out.String() != want || errs.String() != "oops" {
		t.Errorf("%d bytes of output, %q", out.Len(), errs.String())
	}
	if len(said) != 2 || said[0] != `{"type":"started","exec_id":"p1","pid":3}` || said[1] != `{"type":"exit","exit_code":3}` {
		t.Errorf("%q", said)
	}
	if a, b := <-d.killed, <-d.killed; a != "p1/10/false" || b != "p1/2/true" {
		t.Errorf("signals %s, %s", a, b)
	}
	if len(d.sizes) != 1 || d.sizes[0] != (api.TerminalSize{Rows: 3, Cols: 4}) {
		t.Errorf("%v", d.sizes)
	}
}

// TestStalledReader: a client that does not read holds the command up, and no memory grows; when it goes, the command ends.
func TestStalledReader(t *testing.T) {
	d := newDouble()
	var written atomic.Int64
	d.exec = func(ctx context.Context, _ api.ExecRequest, streams lifecycle.ExecIO) (api.ExecResult, error) {
		streams.Started(api.ProcessInfo{ExecID: "p1"})
		for ctx.Err() == nil && len(d.over) == 0 {
			n, _ := streams.Stdout.Write(make([]byte, 64<<10))
			written.Add(int64(n))
		}
		return api.ExecResult{}, nil
	}
	f := serve(t, d)
	ws := f.open(t, "exec/ws")
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"argv":["yes"]}`)); err != nil {
		t.Fatal(err)
	}
	before := int64(-1)
	for now := written.Load(); now != before; now = written.Load() {
		before = now
		time.Sleep(300 * time.Millisecond)
	}
	if before > 8<<20 {
		t.Errorf("%d bytes were taken of a client that reads nothing", before)
	}
	_ = ws.CloseNow()
	d.wantKill(t)
}

// TestStalledCommand: a command that does not read its input holds its client up, and is killed when that goes.
func TestStalledCommand(t *testing.T) {
	d := newDouble()
	start := make(chan struct{})
	close(start)
	forever(d, start)
	ws := serve(t, d).open(t, "exec/ws")
	if err := ws.Write(t.Context(), websocket.MessageText, []byte(`{"argv":["sleep"],"stdin":true}`)); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		err := ws.Write(ctx, websocket.MessageBinary, make([]byte, 512<<10)) // the end of ctx closes the connection
		cancel()
		if err != nil {
			break
		}
		if sent += 512 << 10; sent > 16<<20 {
			t.Fatal("it takes input that nobody reads")
		}
	}
	d.wantKill(t)
}

// TestSocketRefusals: what is wrong is told, with a status where there is no WebSocket yet.
func TestSocketRefusals(t *testing.T) {
	d := newDouble()
	start := make(chan struct{})
	close(start)
	forever(d, start)
	f := serve(t, d)
	for path, protocol := range map[string]string{"exec/ws": "", "processes/p1/ws": "other", "processes/nix/ws": api.StreamProtocol} {
		o := &websocket.DialOptions{HTTPClient: f.client}
		if protocol != "" {
			o.Subprotocols = []string{protocol}
		}
		_, res, err := websocket.Dial(t.Context(), "ws://x/v1/sandboxes/web/"+path, o) //nolint:bodyclose // the library has read it
		want := http.StatusBadRequest
		if protocol == api.StreamProtocol {
			want = http.StatusNotFound
		}
		if err == nil || res == nil || res.StatusCode != want || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %v %v", path, res, err)
		}
	}
	for name, m := range map[string][]string{
		"no JSON":          {`argv`},
		"an unknown field": {`{"argv":["x"],"foo":1}`},
		"no command":       {`{}`},
		"a bad message":    {`{"argv":["x"]}`, `{"type":"frob"}`},
		"a bad signal":     {`{"argv":["x"]}`, `{"type":"signal","signal":"SIGFOO"}`},
		"a bad size":       {`{"argv":["x"]}`, `{"type":"resize","rows":0,"cols":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			ws := f.open(t, "exec/ws")
			for _, p := range m {
				if err := ws.Write(t.Context(), websocket.MessageText, []byte(p)); err != nil {
					t.Fatal(err)
				}
			}
			if len(m) > 1 {
				d.wantKill(t)
			}
			said := ""
			for {
				_, p, err := ws.Read(t.Context())
				if err != nil {
					if websocket.CloseStatus(err) != websocket.StatusInternalError {
						t.Errorf("closed with %v", err)
					}
					break
				}
				said += string(p)
			}
			if !strings.Contains(said, `"type":"error"`) || !strings.Contains(said, `"code":"invalid"`) {
				t.Errorf("%q", said)
			}
			for len(d.killed) > 0 {
				<-d.killed
			}
		})
	}
}

// TestTooLong: a message that is too long ends the connection, and the command.
func TestTooLong(t *testing.T) {
	d := newDouble()
	start := make(chan struct{})
	close(start)
	forever(d, start)
	ws := serve(t, d).open(t, "exec/ws")
	for _, p := range []string{`{"argv":["x"]}`, strings.Repeat(" ", 2<<20)} {
		if err := ws.Write(t.Context(), websocket.MessageText, []byte(p)); err != nil {
			break
		}
	}
	d.wantKill(t)
	for {
		if _, _, err := ws.Read(t.Context()); err != nil {
			break
		}
	}
}

// TestOutput: pieces say where the output goes on; what is gone is counted.
func TestOutput(t *testing.T) {
	d := newDouble()
	d.attach = func(_ context.Context, req api.AttachRequest, streams lifecycle.AttachIO) (api.AttachResult, error) {
		if req.Process != "p1" {
			return api.AttachResult{}, errdefs.NotFound.Errorf("there is no command %q", req.Process)
		}
		streams.Began(api.Process{ExecID: "p1"})
		streams.Gap(5)
		_, _ = streams.Stdout.Write([]byte("abc"))
		_, _ = streams.Stderr.Write([]byte("de"))
		if req.NoFollow {
			return api.AttachResult{Offset: req.Offset + 10}, nil
		}
		return api.AttachResult{Offset: req.Offset + 10, Result: &api.ExecResult{ExitCode: 1}}, nil
	}
	f := serve(t, d)
	get := func(path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/v1/sandboxes/web/processes/"+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := f.client.Do(req)
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
	if code, b := get("nix/output"); code != http.StatusNotFound || !strings.Contains(b, `"code":"not_found"`) {
		t.Errorf("%d %s", code, b)
	}
	_, b := get("p1/output?offset=100")
	for _, want := range []string{
		"event: process\n", `event: gap` + "\n" + `data: {"bytes":5,"offset":105}`, `event: stdout` + "\n" + `data: {"data":"YWJj","offset":108}`,
		`event: stderr` + "\n" + `data: {"data":"ZGU=","offset":110}`, `event: end` + "\n" + `data: {"offset":110}`,
	} {
		if !strings.Contains(b, want) {
			t.Errorf("%q is missing in\n%s", want, b)
		}
	}
	if _, b := get("p1/output?offset=1&follow=true"); !strings.Contains(b, "event: exit\n"+`data: {"exit_code":1,"offset":11}`) {
		t.Errorf("%s", b)
	}
}

// TestWaitTimeout: a wait that takes too long is a timeout, and nothing happens to the command.
func TestWaitTimeout(t *testing.T) {
	d := newDouble()
	res, err := serve(t, d).post(t.Context(), "processes/p1/wait?timeout_ms=30", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var p web.Problem
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil || res.StatusCode != http.StatusGatewayTimeout || p.Code != errdefs.Timeout || len(d.killed) > 0 {
		t.Errorf("%d %+v %v", res.StatusCode, p, err)
	}
}

// TestSignals: by name, without SIG, in small letters, by number.
func TestSignals(t *testing.T) {
	d := newDouble()
	f := serve(t, d)
	for body, want := range map[string]string{
		`{"signal":"SIGTERM"}`: "15/false", `{"signal":"term","group":true}`: "15/true", `{"signal":9}`: "9/false", `{"signal":"64"}`: "64/false",
		`{"signal":"SIGFOO"}`: "", `{"signal":0}`: "", `{"signal":65}`: "", `{"signal":""}`: "", `{}`: "", `{"signal":true}`: "", `{"signal":1.5}`: "",
	} {
		res, err := f.post(t.Context(), "processes/p1/signal", body)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if want == "" {
			if res.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: %d", body, res.StatusCode)
			}
			continue
		}
		if got := <-d.killed; res.StatusCode != http.StatusNoContent || got != "p1/"+want {
			t.Errorf("%s: %d, %s", body, res.StatusCode, got)
		}
	}
}

// TestDuration: the guest's word counts as far as it can be true.
func TestDuration(t *testing.T) {
	d := newDouble()
	for micros, most := range map[int64]float64{int64(time.Hour / time.Microsecond): 10_000, 1: 10_000} {
		d.exec = func(_ context.Context, _ api.ExecRequest, streams lifecycle.ExecIO) (api.ExecResult, error) {
			streams.Started(api.ProcessInfo{ExecID: "p1"})
			time.Sleep(20 * time.Millisecond)
			_, _ = streams.Stdout.Write([]byte("12345"))
			return api.ExecResult{GuestMicros: micros}, nil
		}
		res, err := serve(t, d).post(t.Context(), "exec", `{"argv":["x"],"max_output_bytes":3}`)
		if err != nil {
			t.Fatal(err)
		}
		var r api.CommandResult
		err = json.NewDecoder(res.Body).Decode(&r)
		_ = res.Body.Close()
		if err != nil || r.DurationMs < 20 || r.DurationMs > most || r.Stdout != "123" || !r.StdoutTruncated {
			t.Errorf("%+v %v", r, err)
		}
	}
}
