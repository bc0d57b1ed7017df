package apt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/need"
)

func client(t *testing.T, mirror string) *Client {
	t.Helper()
	need.Tool(t, "apt-get", "the tests of apt need a Debian")
	for _, v := range []string{"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"} {
		t.Setenv(v, "")
	}
	a := Archive{Main: mirror + "/debian", Security: mirror + "/debian-security"}
	c, err := newClient(t.TempDir(), a, nil) // a proxy of this host would not reach our server
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestUpdateWithoutNetwork(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // only to find a port that nobody listens on
	if err != nil {
		t.Fatal(err)
	}
	mirror := "http://" + l.Addr().String()
	_ = l.Close()
	err = client(t, mirror).Update(t.Context(), nil)
	if !errdefs.Is(err, errdefs.Network) || errdefs.RemedyOf(err) == "" {
		t.Errorf("got %s: %v", errdefs.ClassOf(err), err)
	}
}

func TestUpdateFromABadMirror(t *testing.T) {
	for _, c := range []struct {
		name  string
		serve http.HandlerFunc
		class errdefs.Class
	}{
		{"nothing there", http.NotFound, errdefs.Network},
		{"unsigned", func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/Release") {
				_, _ = fmt.Fprint(w, "Origin: Debian\nSuite: trixie\nCodename: trixie\nDate: Sat, 09 Aug 2025 00:00:00 UTC\nComponents: main\nArchitectures: amd64\n")
				return
			}
			http.NotFound(w, r)
		}, errdefs.Image},
		{"a login page", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprint(w, "<html>please log in</html>")
		}, errdefs.Image},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(c.serve)
			defer srv.Close()
			err := client(t, srv.URL).Update(t.Context(), nil)
			if !errdefs.Is(err, c.class) {
				t.Errorf("got %s: %v", errdefs.ClassOf(err), err)
			}
		})
	}
}

func TestUpdateEndsWithItsContext(t *testing.T) {
	asked := make(chan struct{}, 16)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if err := client(t, srv.URL).Update(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestToolIsNamedWithItsPackage(t *testing.T) {
	_, err := Tool("smolvm-no-such-tool", "some-package")
	if !errdefs.Is(err, errdefs.Host) || !strings.Contains(errdefs.RemedyOf(err), "apt-get install -y some-package") {
		t.Errorf("got %v, %q", err, errdefs.RemedyOf(err))
	}
}

func TestReadStatus(t *testing.T) {
	var got []float64
	readStatus(strings.NewReader("dlstatus:1:12.5:Retrieving\nother\ndlstatus:1:250:x\npmstatus:a:100.0:y\n"),
		func(p float64) { got = append(got, p) })
	if len(got) != 2 || got[0] != 12.5 || got[1] != 100 {
		t.Errorf("got %v", got)
	}
}
