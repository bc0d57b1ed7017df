package cacert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// makeCert returns a self-signed certificate (DER) and its key.
func makeCert(tb testing.TB, name pkix.Name, ca bool) (der, key []byte) {
	tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: name, BasicConstraintsValid: true, IsCA: ca,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if der, err = x509.CreateCertificate(rand.Reader, tmpl, tmpl, private.Public(), private); err != nil {
		tb.Fatal(err)
	}
	if key, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
		tb.Fatal(err)
	}
	return der, key
}

func block(kind string, b []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
}

func TestParse(t *testing.T) {
	one, key := makeCert(t, pkix.Name{CommonName: "one"}, true)
	two, _ := makeCert(t, pkix.Name{CommonName: "two"}, true)
	leaf, _ := makeCert(t, pkix.Name{CommonName: "leaf"}, false)
	tests := []struct {
		name, text string
		want       [][]byte
		says       string
	}{
		{"one", PEM(one), [][]byte{one}, ""},
		{"two with words between them", "# our root\n" + PEM(one) + "and\r\n\r\n" + PEM(two) + "end", [][]byte{one, two}, ""},
		{"line ends of another system", strings.ReplaceAll(PEM(one), "\n", "\r\n"), [][]byte{one}, ""},
		{"no line end", strings.TrimSuffix(PEM(one), "\n"), [][]byte{one}, ""},
		{"nothing", "", nil, "no certificate"},
		{"DER", string(one), nil, "no certificate"},
		{"a key behind it", PEM(one) + block("PRIVATE KEY", key), nil, "private key"},
		{"a key before it", block("EC PRIVATE KEY", key) + PEM(one), nil, "private key"},
		{"a key that is cut off", PEM(one) + "-----BEGIN PRIVATE KEY-----\nAAAA", nil, "private key"},
		{"another block", PEM(one) + block("CERTIFICATE REQUEST", one), nil, "CERTIFICATE REQUEST"},
		{"OpenSSL's trusted form", block("TRUSTED CERTIFICATE", one), nil, "TRUSTED"},
		{"not of an authority", PEM(leaf), nil, "not one of an authority"},
		{"one of them not of an authority", PEM(one) + PEM(leaf), nil, "not one of an authority"},
		{"cut off", PEM(one) + PEM(two)[:100], nil, "damaged"},
		{"no certificate inside", block("CERTIFICATE", []byte("hello")), nil, "x509"},
		{"more behind the certificate", block("CERTIFICATE", append(slices.Clone(one), 0)), nil, "trailing"},
		{"too large a certificate", block("CERTIFICATE", make([]byte, MaxDER+1)), nil, "larger"},
		{"too large a file", strings.Repeat("#", MaxFile+1), nil, "more than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse([]byte(tt.text))
			if !slices.EqualFunc(got, tt.want, bytes.Equal) {
				t.Errorf("%d certificates", len(got))
			}
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %q", err, tt.says)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	der, key := makeCert(f, pkix.Name{CommonName: "seed"}, true)
	f.Add([]byte(PEM(der)))
	f.Add([]byte(PEM(der) + block("PRIVATE KEY", key)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := Parse(text)
		if (err == nil) == (len(got) == 0) {
			t.Fatalf("%d certificates and error %v", len(got), err)
		}
		for _, der := range got {
			if err := Check(der); err != nil {
				t.Fatal(err)
			}
			_, _ = Hash(der)
			if again, err := Parse([]byte(PEM(der))); err != nil || !bytes.Equal(again[0], der) {
				t.Fatalf("what is written is not read back: %v", err)
			}
		}
	})
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	var pems []string
	var ders [][]byte
	for i := range 5 {
		der, _ := makeCert(t, pkix.Name{CommonName: fmt.Sprint(i)}, true)
		ders, pems = append(ders, der), append(pems, PEM(der))
	}
	local, anchors, known := filepath.Join(dir, "local"), filepath.Join(dir, "anchors"), filepath.Join(dir, "known")
	put(t, filepath.Join(local, "b.crt"), pems[1])
	put(t, filepath.Join(local, "a.crt"), pems[0])
	put(t, filepath.Join(local, "sub/c.crt"), pems[0]+pems[2])
	put(t, filepath.Join(local, "key.pem"), "PRIVATE KEY")
	put(t, filepath.Join(local, "README"), pems[4])
	if err := syscall.Mkfifo(filepath.Join(local, "pipe.crt"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(local, "zero.crt")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(anchors, "x.pem"), pems[2])
	put(t, filepath.Join(known, "mozilla/k.crt"), pems[3])
	put(t, filepath.Join(dir, "bundle"), pems[3]+pems[1]+pems[4])
	s := Sources{Dirs: []string{local, anchors, filepath.Join(dir, "absent")}, Bundle: filepath.Join(dir, "bundle"), Known: known}
	var log strings.Builder
	got := Find(s, slog.New(slog.NewTextHandler(&log, nil)))
	if want := [][]byte{ders[0], ders[1], ders[2], ders[4]}; !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("found %d", len(got))
	}
	for _, file := range []string{"key.pem", "pipe.crt", "zero.crt"} {
		if !strings.Contains(log.String(), file) {
			t.Errorf("nothing is said of %s: %s", file, log.String())
		}
	}
	if got := Find(Sources{}, slog.New(slog.DiscardHandler)); got != nil {
		t.Errorf("nowhere: %d", len(got))
	}
}

// TestFindMany: a bundle of all the world's is nobody's addition, and a folder of very many is cut off and told of.
func TestFindMany(t *testing.T) {
	dir := t.TempDir()
	var all strings.Builder
	for i := range MaxRoots + 1 {
		der, _ := makeCert(t, pkix.Name{CommonName: fmt.Sprint(i)}, true)
		all.WriteString(PEM(der))
	}
	put(t, filepath.Join(dir, "bundle"), all.String())
	put(t, filepath.Join(dir, "local/all.crt"), all.String())
	quiet := slog.New(slog.DiscardHandler)
	if got := Find(Sources{Bundle: filepath.Join(dir, "bundle")}, quiet); len(got) != 0 {
		t.Errorf("%d of a bundle", len(got))
	}
	var log strings.Builder
	got := Find(Sources{Dirs: []string{filepath.Join(dir, "local")}}, slog.New(slog.NewTextHandler(&log, nil)))
	if len(got) != MaxRoots || !strings.Contains(log.String(), "only the first") {
		t.Errorf("%d of a folder; %s", len(got), log.String())
	}

	all.Reset()
	for i := range 40 {
		der, _ := makeCert(t, pkix.Name{CommonName: fmt.Sprint(i), Organization: []string{strings.Repeat("x", 5000)}}, true)
		all.WriteString(PEM(der))
	}
	put(t, filepath.Join(dir, "large/all.crt"), all.String())
	got, total := Find(Sources{Dirs: []string{filepath.Join(dir, "large")}}, quiet), 0
	for _, der := range got {
		total += len(der)
	}
	if total > MaxTotal || total < MaxTotal/2 {
		t.Errorf("%d certificates with %d bytes", len(got), total)
	}
}

// TestHash compares with OpenSSL, on names of our own and on some that this host trusts.
func TestHash(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl to compare with")
	}
	var ders [][]byte
	for _, name := range []pkix.Name{
		{CommonName: "Plain"},
		{CommonName: "  Much \t space  and CASE  ", Organization: []string{"Ünïcode ÄÖ GmbH"}, Country: []string{"DE"}},
		{CommonName: "Multi", OrganizationalUnit: []string{"B unit", "a unit"}},
		{},
	} {
		der, _ := makeCert(t, name, true)
		ders = append(ders, der)
	}
	left := maxEntries
	for i, file := range files("/usr/share/ca-certificates", &left) {
		if i%10 != 0 { // a process for each takes time
			continue
		}
		if more, err := readFile(file); err == nil {
			ders = append(ders, more...)
		}
	}
	for _, der := range ders {
		cmd := exec.CommandContext(t.Context(), "openssl", "x509", "-noout", "-hash")
		cmd.Stdin = strings.NewReader(PEM(der))
		want, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Hash(der); err != nil || got != strings.TrimSpace(string(want)) {
			c, _ := x509.ParseCertificate(der)
			t.Errorf("%q: %s, %v; OpenSSL says %s", c.Subject, got, err, want)
		}
	}
	t.Logf("%d compared", len(ders))
}
