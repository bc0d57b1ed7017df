package vm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority is a certificate authority of a company that looks into its own traffic.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Inspection Root", Organization: []string{"SmolVM tests"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// site is an HTTPS server with a certificate of the authority's, on the host's loopback.
func (a authority) site(t *testing.T, name string) int {
	t.Helper()
	return a.serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		_, _ = fmt.Fprint(w, "trusted")
	}, name)
}

// serve is an HTTPS server of those names.
func (a authority) serve(t *testing.T, handler http.HandlerFunc, names ...string) int {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(handler)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port
}

// TestVMTrust: what the host's administrator trusts, the guest's programs do too, after a restart and after the list was made
// anew, unless it is switched off or the user says otherwise.
func TestVMTrust(t *testing.T) {
	c := program(t)
	const host = "host.smolvm.internal"
	root := newAuthority(t)
	port := root.site(t, host)
	file := filepath.Join(t.TempDir(), "root.pem")
	write(t, file, root.pem(), 0o600)
	t.Setenv("SSL_CERT_FILE", file)
	url := fmt.Sprintf("https://%s:%d/", host, port)
	clients := map[string]string{
		"curl":     "curl -sS -m 60 " + url,
		"urllib":   `python3 -c 'import urllib.request as u; print(u.urlopen("` + url + `").read().decode(), end="")'`,
		"requests": `python3 -c 'from pip._vendor import requests as r; print(r.get("` + url + `").text, end="")'`,
		"openssl":  fmt.Sprintf("openssl s_client -connect %s:%d -verify_return_error -CApath /etc/ssl/certs </dev/null >/dev/null 2>&1 && printf trusted", host, port),
		// The server is no git server: what counts is that git gets so far to say so.
		"git": "git ls-remote " + url + " 2>&1 | grep -q 'repository .* not found' && printf trusted",
	}
	id := c.vm(t, "trust", "--allow", fmt.Sprintf("%s:%d", host, port))
	all := func(when string) {
		t.Helper()
		for name, script := range clients {
			if got := c.exec(t, id, "sh", "-c", script); got.stdout != "trusted" {
				t.Errorf("%s, %s: %q %s", when, name, got.stdout, got.stderr)
			}
		}
	}
	all("fresh")
	state := "cd /etc/ssl/certs && sha256sum ca-certificates.crt && ls -l | awk '{print $1, $9, $10, $11}' | sort"
	before := c.sh(t, id, state)
	// It is what Debian's own tool makes, which a new installation of the package runs.
	c.sh(t, id, "update-ca-certificates")
	if after := c.sh(t, id, state); after != before {
		t.Errorf("update-ca-certificates makes\n%s\nours was\n%s", after, before)
	}
	c.ok(t, "stop", id)
	c.ok(t, "start", id)
	all("after a restart")
	if got := c.ok(t, "exec", id, "-e", "CURL_CA_BUNDLE=/mine", "-c", "echo $CURL_CA_BUNDLE $PIP_CERT"); got != "/mine /etc/ssl/certs/ca-certificates.crt\n" {
		t.Errorf("the user's own value: %q", got)
	}

	other := c.vm(t, "distrust", "--no-host-cas", "--allow", fmt.Sprintf("%s:%d", host, port))
	if got := c.exec(t, other, "sh", "-c", clients["curl"]); got.code == 0 || !strings.Contains(got.stderr, "certificate") {
		t.Errorf("switched off: %d %q", got.code, got.stderr)
	}
	if got := c.sh(t, other, "ls /usr/local/share/ca-certificates | wc -l"); got != "1\n" { // its gateway's
		t.Errorf("switched off: %q", got)
	}
}
