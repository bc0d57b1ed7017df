package boot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/sys/cacert"
)

// authority makes a certificate (DER); those of one name have one hash.
func authority(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true, IsCA: true,
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// system makes a folder that looks like a system with the package ca-certificates and one authority of the distribution's.
func system(t *testing.T, distribution []byte) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{trustLocal, trustDir, "usr/share/ca-certificates/mozilla", "hooks"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	hash, err := cacert.Hash(distribution)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"usr/share/ca-certificates/mozilla/first.crt": cacert.PEM(distribution),
		"etc/ca-certificates.conf":                    "mozilla/first.crt\n",
		trustBundle:                                   cacert.PEM(distribution),
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"first.pem": "/usr/share/ca-certificates/mozilla/first.crt", hash + ".0": "first.pem"} {
		if err := os.Symlink(to, filepath.Join(root, trustDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// trusted is what a system trusts: the bundle, and where each link leads.
func trusted(t *testing.T, root string) (string, map[string]string) {
	t.Helper()
	bundle, err := os.ReadFile(filepath.Join(root, trustBundle))
	if err != nil {
		t.Fatal(err)
	}
	links := map[string]string{}
	entries, err := os.ReadDir(filepath.Join(root, trustDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type() == fs.ModeSymlink {
			to, err := os.Readlink(filepath.Join(root, trustDir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			links[e.Name()] = strings.TrimPrefix(to, root)
		} else if e.Name() != filepath.Base(trustBundle) {
			t.Errorf("%s is left", e.Name())
		}
	}
	return string(bundle), links
}

// authorities are certificates as the host sends them.
func authorities(t *testing.T, ders ...[]byte) []*proto.Authority {
	t.Helper()
	out := make([]*proto.Authority, 0, len(ders))
	for _, der := range ders {
		hash, err := cacert.Hash(der)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, &proto.Authority{Pem: cacert.PEM(der), SubjectHash: hash})
	}
	return out
}

// TestTrust: after each change of what is trusted, the system is as update-ca-certificates makes it, and a second time nothing
// is written.
func TestTrust(t *testing.T) {
	distribution := authority(t, "Same Name")
	a, b, c := authority(t, "Same  name"), authority(t, "other"), authority(t, "same name")
	root := system(t, distribution)
	before, links := trusted(t, root)
	for i, ders := range [][][]byte{{a}, {a, b}, {a, b, c}, {b, c}, {c}, {a, c}, nil} {
		roots := authorities(t, ders...)
		for range 2 {
			if err := trust(root, roots); err != nil {
				t.Fatal(err)
			}
		}
		compare(t, fmt.Sprint(i), root)
		if env := trustEnv(root, roots); (len(env) == 0) != (len(roots) == 0) {
			t.Errorf("%d roots: the environment is %v", len(roots), env)
		}
	}
	after, now := trusted(t, root)
	if after != before || !maps.Equal(links, now) {
		t.Errorf("something is left of what is trusted no more: %v, was %v", now, links)
	}
	if entries, _ := os.ReadDir(filepath.Join(root, trustLocal)); len(entries) > 0 {
		t.Errorf("%v is left", entries)
	}
}

// compare has the real update-ca-certificates do it again.
func compare(t *testing.T, name, root string) {
	t.Helper()
	tool, err := exec.LookPath("update-ca-certificates")
	if err != nil {
		t.Log("there is no update-ca-certificates to compare with")
		return
	}
	bundle, links := trusted(t, root)
	theirs := t.TempDir()
	cmd := exec.CommandContext(t.Context(), tool, "--fresh",
		"--certsconf", filepath.Join(root, "etc/ca-certificates.conf"), "--certsdir", filepath.Join(root, "usr/share/ca-certificates"),
		"--localcertsdir", filepath.Join(root, trustLocal), "--etccertsdir", theirs, "--hooksdir", filepath.Join(root, "hooks"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want, err := os.ReadFile(filepath.Join(theirs, "ca-certificates.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if bundle != string(want) {
		t.Errorf("%s: the bundle is\n%s\nupdate-ca-certificates makes\n%s", name, bundle, want)
	}
	entries, err := os.ReadDir(theirs)
	if err != nil {
		t.Fatal(err)
	}
	// Which of those with one hash comes first does not matter: the names must be the same.
	for _, e := range entries {
		if e.Type() != fs.ModeSymlink {
			continue
		}
		if _, ok := links[e.Name()]; !ok {
			t.Errorf("%s: the link %s is missing", name, e.Name())
		}
		delete(links, e.Name())
	}
	for extra := range links {
		t.Errorf("%s: the link %s is one too many", name, extra)
	}
}

// TestTrustLeavesAlone: an equal system is not written to, and what the user has in it stays.
func TestTrustLeavesAlone(t *testing.T) {
	a := authority(t, "a")
	root := system(t, authority(t, "first"))
	own := filepath.Join(root, trustLocal, "own.crt")
	if err := os.WriteFile(own, []byte(cacert.PEM(a)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := trust(root, authorities(t, a)); err != nil {
		t.Fatal(err)
	}
	stat := func() os.FileInfo {
		st, err := os.Stat(filepath.Join(root, trustBundle))
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	first := stat()
	if err := trust(root, authorities(t, a)); err != nil || !os.SameFile(first, stat()) {
		t.Errorf("the bundle was written again, %v", err)
	}
	if err := trust(root, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(own); err != nil {
		t.Error(err)
	}
}

// TestTrustOddSystems: without a list of certificates there is nothing to add to, and what a guest's user did to our files is
// no reason not to start.
func TestTrustOddSystems(t *testing.T) {
	a := authority(t, "a")
	root := t.TempDir()
	if err := trust(root, authorities(t, a)); err != nil {
		t.Error(err)
	}
	if env := trustEnv(root, authorities(t, a)); env != nil {
		t.Errorf("the environment names a list that is not there: %v", env)
	}
	if ours, _ := filepath.Glob(filepath.Join(root, trustLocal, "smolvm-*.crt")); len(ours) != 1 {
		t.Errorf("%v wait for the package ca-certificates", ours)
	}
	root = system(t, a)
	if err := os.WriteFile(filepath.Join(root, trustLocal, "smolvm-0.crt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := trust(root, nil); err != nil {
		t.Error(err)
	}
	for _, bad := range []*proto.Authority{
		{Pem: "no certificate", SubjectHash: "01234567"}, {Pem: cacert.PEM(a), SubjectHash: "../../../x"}, {Pem: cacert.PEM(a)}, {},
	} {
		if err := trust(root, []*proto.Authority{bad}); err == nil {
			t.Errorf("what is no certificate is trusted: %v", bad)
		}
	}
}
