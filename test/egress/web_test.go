package egress

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/coder/websocket"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// authorityVar names a file with the key and the certificate of the outside's authority, which the host trusts.
const authorityVar = "SMOLVM_EGRESS_AUTHORITY"

// newAuthority makes the outside's authority and has this host, in this test, trust it and nobody else.
func newAuthority(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the outside's authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	both := append(cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	for name, b := range map[string][]byte{"ca.pem": cert, "both.pem": both} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SSL_CERT_FILE", filepath.Join(dir, "ca.pem"))
	t.Setenv("SSL_CERT_DIR", dir)
	t.Setenv(authorityVar, filepath.Join(dir, "both.pem"))
}

// site issues certificates for whatever name it is asked for.
type site struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
	out  *printer

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

func (s *site) leaf(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := h.ServerName
	s.out.say("tls %s", name)
	if known := s.leaves[name]; known != nil {
		return known, nil
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(s.leaves) + 2)), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	parent := s.root
	switch name {
	case "expired.web.test":
		tmpl.NotAfter = time.Now().Add(-time.Hour)
	case "self.web.test":
		parent = tmpl
	case "misnamed.web.test":
		tmpl.DNSNames = []string{"another.test"}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, s.key.Public(), s.key)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: s.key}
	s.leaves[name] = c
	return c, nil
}

// startSite serves HTTP and HTTPS at the address web. A listener's connections to other addresses are greeted.
func startSite(out *printer, plain, secure net.Listener) {
	text, err := os.ReadFile(os.Getenv(authorityVar))
	must(err)
	cert, rest := pem.Decode(text)
	private, _ := pem.Decode(rest)
	root, err := x509.ParseCertificate(cert.Bytes)
	must(err)
	key, err := x509.ParsePKCS8PrivateKey(private.Bytes)
	must(err)
	s := &site{root: root, key: key.(*ecdsa.PrivateKey), out: out, leaves: map[string]*tls.Certificate{}} //nolint:forcetypeassert // we made it
	mux := http.NewServeMux()
	mux.Handle("/test.Echo/Call", connect.NewBidiStreamHandler("/test.Echo/Call", echoCall))
	mux.HandleFunc("/ok/events", events)
	mux.HandleFunc("/ok/ws", echoSocket)
	mux.HandleFunc("/ok/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://closed.test/ok/", http.StatusFound)
	})
	mux.HandleFunc("/ok/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://other.web.test/ok/1", http.StatusFound)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintf(w, "hello %s %d %s", r.Proto, n, r.Header.Get("Authorization"))
	})
	addServices(mux)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out.say("http %s %s %s auth=%s", r.Host, r.Method, r.RequestURI, r.Header.Get("Authorization"))
		mux.ServeHTTP(w, r)
	})
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		TLSConfig: &tls.Config{GetCertificate: s.leaf, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}},
	}
	go func() { must(server.Serve(newForked(plain))) }()
	go func() { must(server.ServeTLS(newForked(secure), "", "")) }()
}

func echoCall(_ context.Context, stream *connect.BidiStream[wrapperspb.StringValue, wrapperspb.StringValue]) error {
	for {
		m, err := stream.Receive()
		if err != nil {
			return nil //nolint:nilerr // the client's end
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}

func events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for {
		if _, err := io.WriteString(w, "data: hello\n\n"); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(5 * time.Second):
		}
	}
}

func echoSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	for {
		kind, b, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, b); err != nil {
			return
		}
	}
}

// forked is a listener of which the connections to web are served, and all others greeted.
type forked struct {
	net.Listener
	conns chan net.Conn
}

func newForked(l net.Listener) *forked {
	f := &forked{l, make(chan net.Conn)}
	others := &forked{l, make(chan net.Conn)}
	go func() {
		for {
			c, err := l.Accept()
			must(err)
			to := others
			if strings.HasPrefix(c.LocalAddr().String(), web+":") {
				to = f
			}
			to.conns <- c
		}
	}()
	go greet(others)
	return f
}

// Accept implements net.Listener.
func (f *forked) Accept() (net.Conn, error) { return <-f.conns, nil }
