package fcapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smolvm/smolvm/errdefs"
)

// serve answers on a unix socket and counts the connections.
func serve(t *testing.T, h http.HandlerFunc) (*Client, *atomic.Int32) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api")
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conns := &atomic.Int32{}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	c := New(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
	t.Cleanup(c.Close)
	return c, conns
}

func TestOneConnection(t *testing.T) {
	c, conns := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = w.Write([]byte(`{"firecracker_version": "1.12.1"}`))
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	for range 20 {
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v, err := c.Version(t.Context()); err != nil || v != (Version{1, 12, 1}) {
			t.Fatal(v, err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestAnswers: what a monitor may say instead of yes.
func TestAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		class  errdefs.Class
		want   string
	}{
		{"a fault", 400, `{"fault_message": "no\u001b[2J kernel"}`, errdefs.Invalid, "PUT /boot-source: Firecracker refuses: no [2J kernel"},
		{"a fault without words", 400, `{}`, errdefs.Invalid, "{}"},
		{"nothing", 400, ``, errdefs.Invalid, "it does not say why"},
		{"its own failure", 503, `busy`, errdefs.Engine, "busy"},
		{"a long fault", 400, strings.Repeat("x", 100<<10), errdefs.Invalid, " …"},
		{"a redirection", 307, ``, errdefs.Engine, "status 307"},
		{"without an end", 200, strings.Repeat("x", maxBody+1), errdefs.Engine, "has more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "http://elsewhere/")
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
			})
			err := c.Boot(t.Context(), BootSource{Kernel: "k"})
			if errdefs.ClassOf(err) != tt.class || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 3<<10 {
				t.Errorf("%v of class %s, want %q of %s", err, errdefs.ClassOf(err), tt.want, tt.class)
			}
			var fault *FaultError
			if got := errors.As(err, &fault); got != (tt.status >= 400) {
				t.Errorf("a fault: %v", got)
			}
		})
	}
	c, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("[]")) })
	if _, err := c.Version(t.Context()); errdefs.ClassOf(err) != errdefs.Engine {
		t.Errorf("an answer of another kind: %v", err)
	}
}

func TestDeadline(t *testing.T) {
	c, _ := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Start(ctx); errdefs.ClassOf(err) != errdefs.Timeout {
		t.Errorf("%v", err)
	}
	c = New(func(context.Context) (net.Conn, error) { return nil, errors.New("nobody there") })
	if err := c.Start(t.Context()); errdefs.ClassOf(err) != errdefs.Engine || !strings.HasSuffix(err.Error(), "nobody there") {
		t.Errorf("%v", err)
	}
}

func TestVersions(t *testing.T) {
	for said, want := range map[string]Version{
		"Firecracker v1.12.1\n\n2026 exiting": {1, 12, 1},
		"Firecracker v1.17.0-dev":             {1, 17, 0},
	} {
		if v, err := ParseVersion([]byte(said)); err != nil || v != want {
			t.Errorf("%q: %v, %v", said, v, err)
		}
	}
	for _, said := range []string{"", "Firecracker v1.12", "xFirecracker v1.12.1", "Firecracker v1.12.123456", "Jailer v1.12.1"} {
		if v, err := ParseVersion([]byte(said)); err == nil {
			t.Errorf("%q is %v", said, v)
		}
	}
	if v, err := ParseDir("1.12.1"); err != nil || v != (Version{1, 12, 1}) {
		t.Error(v, err)
	}
	for _, s := range []string{"v1.12.1", "1.12.01", "..", "1.12.1-x"} {
		if v, err := ParseDir(s); err == nil {
			t.Errorf("%q is %v", s, v)
		}
	}
	if f := FeaturesOf(Version{1, 12, 1}); f.MTU || !f.NetworkOverrides {
		t.Errorf("1.12.1: %+v", f)
	}
	if f := FeaturesOf(Version{1, 16, 1}); !f.MTU {
		t.Errorf("1.16.1: %+v", f)
	}
}

// FuzzAnswer: a monitor that is not itself any more answers what it likes.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"fault_message": "x"}`), 400)
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		if err := refused("PUT /x", status, body); err == nil || len(err.Error()) > 3*maxFault {
			t.Fatal(err)
		}
		_, _ = ParseVersion(body)
	})
}
