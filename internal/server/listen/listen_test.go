package listen

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
)

// TestMain plays a client of another user.
func TestMain(m *testing.M) {
	if path := os.Getenv("SMOLVM_TEST_CONNECT"); path != "" {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
		if err != nil {
			os.Exit(3)
		}
		_, _ = c.Write([]byte("x"))
		b, _ := io.ReadAll(c)
		if len(b) > 0 {
			os.Exit(0)
		}
		os.Exit(4)
	}
	os.Exit(m.Run())
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestUnix: only we may connect, and at the end nothing is left.
func TestUnix(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", strings.Repeat("d", 120)) // longer than a socket's address
	path := filepath.Join(dir, "s.sock")
	l, err := Unix(t.Context(), path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("its directory: %v, %v", st.Mode(), err)
	}
	if _, err := Unix(t.Context(), path, quiet()); !errdefs.Is(err, errdefs.AlreadyExists) {
		t.Errorf("a second one: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestStale: what a killed server left is replaced, by one of those that want to. A new one's socket is not taken away by an
// old one's end.
func TestStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	_ = old.Close()
	var mu sync.Mutex
	var won []net.Listener
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			l, err := Unix(t.Context(), path, quiet())
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won = append(won, l)
			} else if !errdefs.Is(err, errdefs.AlreadyExists) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d have it", len(won))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	next, err := Unix(t.Context(), path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = next.Close() }()
	_ = won[0].Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the old one took the new one's socket away: %v", err)
	}
}

// TestInTheWay: nothing else is replaced, and no socket made where others may put theirs.
func TestInTheWay(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for path, class := range map[string]errdefs.Class{
		file: errdefs.AlreadyExists, link: errdefs.AlreadyExists, filepath.Join(open, "s"): errdefs.Denied, file + "/s": errdefs.Host, dir + "/": errdefs.Invalid,
	} {
		if _, err := Unix(t.Context(), path, quiet()); !errdefs.Is(err, class) {
			t.Errorf("%s: %v, want class %s", path, err, class)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestAnotherUser: even where the socket's mode lets another user in, he is not heard.
func TestAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "s.sock")
	l, err := Unix(t.Context(), path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}
	}()
	defer func() { _ = l.Close() }()
	self, err := os.Open("/proc/self/exe") // where the test lies, another user may not look
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = self.Close() }()
	for d := dir; d != "/" && d != "."; d = filepath.Dir(d) {
		st, err := os.Stat(d)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm()&0o011 != 0o011 {
			if err := os.Chmod(d, st.Mode().Perm()|0o011); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Chmod(d, st.Mode().Perm()) })
		}
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	for uid, want := range map[uint32]int{0: 0, 65534: 4} {
		cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3")
		cmd.ExtraFiles = []*os.File{self}
		cmd.Env = []string{"SMOLVM_TEST_CONNECT=" + path}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		err := cmd.Run()
		code := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != want {
			t.Errorf("user %d: %d, want %d", uid, code, want)
		}
	}
}

// TestTCP: in the clear on this host alone, and by names that the certificate has.
func TestTCP(t *testing.T) {
	cert, key := certificate(t, "vm.example.com")
	for _, tt := range []struct {
		address, cert, key string
		class              errdefs.Class
		names, foreign     []string
	}{
		{"127.0.0.1:0", "", "", "", []string{"localhost"}, []string{"vm.example.com", "localhost.example.com"}},
		{"[::1]:0", "", "", "", []string{"localhost"}, nil},
		{"0.0.0.0:0", "", "", errdefs.Invalid, nil, nil},
		{":0", "", "", errdefs.Invalid, nil, nil},
		{"localhost:0", "", "", errdefs.Invalid, nil, nil}, // a name may mean anything tomorrow
		{"127.0.0.1", "", "", errdefs.Invalid, nil, nil},
		{"127.0.0.1:0", cert, "", errdefs.Invalid, nil, nil},
		{"127.0.0.1:0", cert, cert, errdefs.Invalid, nil, nil},
		{"0.0.0.0:0", cert, key, "", []string{"vm.example.com", "localhost"}, []string{"evil.example"}},
	} {
		l, named, err := TCP(t.Context(), tt.address, tt.cert, tt.key)
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			continue // no IPv6 here
		}
		if got := errdefs.ClassOf(err); got != tt.class {
			t.Errorf("%s: %v, want class %q", tt.address, err, tt.class)
		}
		if err != nil {
			continue
		}
		_ = l.Close()
		for _, n := range tt.names {
			if !named(n) {
				t.Errorf("%s: %s is not ours", tt.address, n)
			}
		}
		for _, n := range tt.foreign {
			if named(n) {
				t.Errorf("%s: %s is ours", tt.address, n)
			}
		}
	}
}

func certificate(t *testing.T, name string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestTLS: who asks in the clear gets nothing, who trusts the certificate an answer.
func TestTLS(t *testing.T) {
	cert, key := certificate(t, "vm.example.com")
	l, _, err := TCP(t.Context(), "127.0.0.1:0", cert, key)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || r.TLS.Version < tls.VersionTLS12 {
			t.Error("a request in the clear")
		}
		_, _ = io.WriteString(w, "hello")
	}), ReadHeaderTimeout: time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func() { _ = srv.Serve(l) }()
	defer func() { _ = srv.Close() }()
	raw, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(raw)
	get := func(url string, pool *x509.CertPool) (string, error) {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "vm.example.com", MinVersion: tls.VersionTLS12}}}
		defer c.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		if err != nil {
			return "", err
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		return string(b), err
	}
	if got, err := get("https://"+l.Addr().String(), trusted); err != nil || got != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := get("https://"+l.Addr().String(), x509.NewCertPool()); err == nil {
		t.Errorf("a certificate that nobody trusts: %q", got)
	}
	if got, err := get("http://"+l.Addr().String(), nil); err == nil && got == "hello" {
		t.Error("an answer in the clear")
	}
}
