package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/sockpath"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a server and a client of it.
func pair(t *testing.T, set func(*Server)) *Client {
	t.Helper()
	path := t.TempDir()
	dir, err := sockpath.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := dir.Listen("s")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := NewServer(ctx, Hello{ID: "x", Build: "b"}, slog.New(slog.DiscardHandler))
	set(s)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	c, err := Dial(t.Context(), path, "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = s.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = dir.Close()
	})
	return c
}

func TestHello(t *testing.T) {
	c := pair(t, func(*Server) {})
	if h := c.Hello(); h.ID != "x" || h.Build != "b" || h.ProtocolMax != ProtocolMax || h.PID == 0 {
		t.Errorf("%+v", h)
	}
	if err := c.Sync(t.Context()); err == nil || errdefs.ClassOf(err) != errdefs.Internal {
		t.Errorf("a call that nobody answers: %v", err)
	}
}

func TestOverlap(t *testing.T) {
	tests := []struct {
		name      string
		low, high int
		ok        bool
	}{
		{"same", ProtocolMin, ProtocolMax, true},
		{"wider", ProtocolMin - 1, ProtocolMax + 5, true},
		{"newer", ProtocolMax + 1, ProtocolMax + 2, false},
		{"older", ProtocolMin - 2, ProtocolMin - 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := overlap("it", tt.low, tt.high)
			if (err == nil) != tt.ok || err != nil && errdefs.RemedyOf(err) == "" {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestProblemsKeepTheirClass(t *testing.T) {
	c := pair(t, func(s *Server) {
		Handle(s, RouteStat, func(_ context.Context, r PathRequest) (api.FileInfo, error) {
			return api.FileInfo{}, errdefs.NotFound.Errorf("no %s", r.Path).WithRemedy("make it")
		})
		s.HandleGet(RouteFile, func(context.Context, url.Values) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader("half"), failing{})), nil
		})
	})
	_, err := c.Stat(t.Context(), "/x", false)
	if !errdefs.Is(err, errdefs.NotFound) || err.Error() != "no /x" || errdefs.RemedyOf(err) != "make it" {
		t.Errorf("%v", err)
	}
	r, err := c.ReadFile(t.Context(), "/x", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if b, err := io.ReadAll(r); err == nil {
		t.Errorf("a body that broke ended cleanly after %q", b)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("failing") }

// TestExecEnds: what a client sees of each end, and that the server sees a client go.
func TestExecEnds(t *testing.T) {
	gone := make(chan struct{})
	c := pair(t, func(s *Server) {
		s.HandleExec(func(ctx context.Context, req api.ExecRequest, streams ExecIO) (api.ExecResult, error) {
			switch req.Argv[0] {
			case "refused":
				return api.ExecResult{}, errdefs.WrongState.Errorf("not now")
			case "lost":
				streams.Started(api.ProcessInfo{ExecID: "1"})
				return api.ExecResult{}, errdefs.Unavailable.Errorf("the guest is gone")
			case "wait":
				streams.Started(api.ProcessInfo{ExecID: "1"})
				<-ctx.Done()
				close(gone)
				return api.ExecResult{}, ctx.Err()
			}
			n, err := io.Copy(streams.Stdout, streams.Stdin)
			return api.ExecResult{ExitCode: int(n)}, err
		})
	})
	exec := func(ctx context.Context, what string, streams ExecIO) (api.ExecResult, error) {
		return c.Exec(ctx, api.ExecRequest{Argv: []string{what}, Stdin: true}, streams)
	}
	if _, err := exec(t.Context(), "refused", ExecIO{}); !errdefs.Is(err, errdefs.WrongState) {
		t.Errorf("refused: %v", err)
	}
	if _, err := exec(t.Context(), "lost", ExecIO{}); !errdefs.Is(err, errdefs.Unavailable) || err.Error() != "the guest is gone" {
		t.Errorf("lost: %v", err)
	}
	var out bytes.Buffer
	if res, err := exec(t.Context(), "cat", ExecIO{Stdin: strings.NewReader("abc"), Stdout: &out}); err != nil || res.ExitCode != 3 || out.String() != "abc" {
		t.Errorf("cat: %+v, %v, %q", res, err, out.String())
	}
	full := errors.New("full")
	if _, err := exec(t.Context(), "cat", ExecIO{Stdin: strings.NewReader("abc"), Stdout: failingWriter{full}}); !errors.Is(err, full) {
		t.Errorf("a writer that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := exec(ctx, "wait", ExecIO{Started: func(api.ProcessInfo) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the server did not see the client go")
	}
	if _, err := c.Exec(t.Context(), api.ExecRequest{}, ExecIO{}); !errdefs.Is(err, errdefs.Invalid) {
		t.Errorf("no command: %v", err)
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

// TestDialNobody: a socket that is absent, and one that hangs up.
func TestDialNobody(t *testing.T) {
	path := t.TempDir()
	if _, err := Dial(t.Context(), path, "s"); !errdefs.Is(err, errdefs.Unavailable) {
		t.Errorf("absent: %v", err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	if _, err := Dial(t.Context(), path, "s"); err == nil {
		t.Error("one that hangs up was taken for a supervisor")
	}
}

func TestReadReports(t *testing.T) {
	tests := []struct {
		name, text string
		steps      int
		class      errdefs.Class
	}{
		{"ready", `{"progress":{"stage":"a"}}{"progress":{"stage":"b"}}{"ready":true}`, 2, ""},
		{"problem", `{"problem":{"code":"host","message":"m"}}`, 0, errdefs.Host},
		{"no word", `{"progress":{"stage":"a"}}`, 1, errdefs.Internal},
		{"nonsense", `panic: x`, 0, errdefs.Internal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			steps := 0
			err := ReadReports(strings.NewReader(tt.text), func(api.Progress) { steps++ })
			if steps != tt.steps || errdefs.ClassOf(err) != tt.class {
				t.Errorf("%d steps, %v", steps, err)
			}
		})
	}
}

// FuzzReadFrame: no bytes make the reader ask for more memory than they are.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{frameStdout, 0, 0, 0, 2, 'h', 'i'})
	f.Add([]byte{frameExit, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			_, p, err := readFrame(r, make([]byte, 16))
			if err != nil {
				return
			}
			if len(p) > len(b) {
				t.Fatalf("%d bytes out of %d", len(p), len(b))
			}
		}
	})
}

// FuzzReadStart does so for the beginning of an exec's request.
func FuzzReadStart(f *testing.F) {
	good, err := startFrame(api.ExecRequest{Argv: []string{"true"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(binary.BigEndian.AppendUint32(nil, maxStart))
	f.Fuzz(func(_ *testing.T, b []byte) {
		var req api.ExecRequest
		_ = readStart(bytes.NewReader(b), &req)
	})
}

// TestOldSupervisor: what one that was started before an upgrade does not know is refused with what helps.
func TestOldSupervisor(t *testing.T) {
	c := &Client{hello: Hello{ID: "x", Build: "old", ProtocolMin: 1, ProtocolMax: protocolPorts - 1}}
	_, add := c.PublishPort(t.Context(), api.Port{GuestPort: 80})
	_, remove := c.UnpublishPort(t.Context(), api.Port{GuestPort: 80})
	for _, err := range []error{add, remove, c.WaitPort(t.Context(), 80)} {
		if !errdefs.Is(err, errdefs.Unavailable) || errdefs.RemedyOf(err) != "smolvm stop x && smolvm start x" {
			t.Errorf("%v, try %q", err, errdefs.RemedyOf(err))
		}
	}
}
