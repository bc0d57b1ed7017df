package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// writes is a connection that notes what is written to it.
type writes struct {
	net.Conn
	all [][]byte
}

func (w *writes) Write(b []byte) (int, error) {
	w.all = append(w.all, bytes.Clone(b))
	return len(b), nil
}

// frames are those that f writes.
func frames(t *testing.T, f func(*http2.Framer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := f(http2.NewFramer(&b, nil)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGather(t *testing.T) {
	head := frames(t, func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true})
	})
	only := frames(t, func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
	})
	data := frames(t, func(f *http2.Framer) error { return f.WriteData(1, true, []byte("hello")) })
	ping := frames(t, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) })
	long := frames(t, func(f *http2.Framer) error { return f.WriteData(1, false, make([]byte, 9000)) })
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, c := range map[string]struct {
		whole int
		in    [][]byte
		want  [][]byte
	}{
		"a head and its body":      {1, [][]byte{head, data}, [][]byte{join(head, data)}},
		"behind another frame":     {1, [][]byte{join(ping, head), data}, [][]byte{join(ping, head, data)}},
		"one by one":               {2, [][]byte{head, data, head, data}, [][]byte{join(head, data), join(head, data)}},
		"two heads":                {2, [][]byte{head, head, data, data}, [][]byte{join(head, head, data), data}},
		"together already":         {1, [][]byte{join(head, data), ping}, [][]byte{join(head, data), ping}},
		"not whole":                {0, [][]byte{head, data}, [][]byte{head, data}},
		"without a body":           {1, [][]byte{only, ping}, [][]byte{only, ping}},
		"a body that does not end": {1, [][]byte{head}, [][]byte{head}},
		"cut anywhere":             {1, [][]byte{long[:4], long[4:20], long[20:], head[:3], head[3:], data}, [][]byte{long[:4], long[4:20], long[20:], head[:3], join(head[3:], data)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got writes
				g := &gather{Conn: &got, limit: gatherFor, whole: c.whole}
				for _, b := range c.in {
					if n, err := g.Write(b); n != len(b) || err != nil {
						t.Fatal(n, err)
					}
				}
				time.Sleep(2 * gatherFor)
				synctest.Wait()
				if len(got.all) != len(c.want) {
					t.Fatalf("%d writes: %q", len(got.all), got.all)
				}
				for i := range c.want {
					if !bytes.Equal(got.all[i], c.want[i]) {
						t.Errorf("write %d is %q, not %q", i, got.all[i], c.want[i])
					}
				}
			})
		})
	}
}

// records counts the records of TLS that come.
type records struct {
	net.Conn
	mu   sync.Mutex
	head []byte
	rest int
	n    int
}

func (r *records) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	for b := b[:n]; len(b) > 0; {
		if r.rest > 0 {
			m := min(r.rest, len(b))
			b, r.rest = b[m:], r.rest-m
			continue
		}
		r.head, b = append(r.head, b[0]), b[1:]
		if len(r.head) == 5 {
			r.rest, r.head = int(r.head[3])<<8|int(r.head[4]), nil
			r.n++
		}
	}
	return n, err
}

func (r *records) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// TestSmallResponses are one packet each, and one that goes on shows its head at once.
func TestSmallResponses(t *testing.T) {
	more := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("X-Some", "header")
		_, _ = io.WriteString(w, "hello")
		if req.URL.Path == "/long" {
			_ = http.NewResponseController(w).Flush()
			<-more
		}
	})
	var counted *records
	c := r.client(true)
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.front.Addr().String())
		counted = &records{Conn: conn}
		return counted, err
	}
	for range 3 {
		r.get(c, "https://"+site+"/")
	}
	before := counted.count()
	const n = 50
	for range n {
		if got := r.get(c, "https://"+site+"/"); got.body != "hello" || got.header.Get("X-Some") != "header" {
			t.Fatalf("%+v", got)
		}
	}
	if got := counted.count() - before; got != n {
		t.Errorf("%d responses came in %d records", n, got)
	}
	res, err := c.Get("https://" + site + "/long") //nolint:noctx // the client has a timeout
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, b); string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	close(more)
	_ = res.Body.Close()
}

// TestSilence ends connections on which nothing is asked, whatever was agreed on.
func TestSilence(t *testing.T) {
	r := newRig(t, func(http.ResponseWriter, *http.Request) {})
	for _, c := range []struct{ name, proto, says string }{
		{"HTTP/2", "h2", ""},
		{"half a preface", "h2", "PRI * HT"},
		{"HTTP/1.1", "http/1.1", ""},
		{"half a request", "http/1.1", "GET / HT"},
		{"HTTP/1.1 where HTTP/2 was agreed on", "h2", "GET / HTTP/1.1\r\nHost: " + site + "\r\n\r\n"},
		{"half a preface in clear", "", "PRI * HT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.front.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if c.proto != "" {
				conn = tls.Client(conn, &tls.Config{RootCAs: r.trusted, ServerName: site, NextProtos: []string{c.proto}, MinVersion: tls.VersionTLS12})
			}
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(conn, c.says); err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(conn)
			if errors.Is(err, os.ErrDeadlineExceeded) || bytes.Contains(b, []byte("200 OK")) {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}
