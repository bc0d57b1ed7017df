package authority

import (
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/smolvm/smolvm/internal/sys/cacert"
)

func issuer(t testing.TB) (*Issuer, []byte) {
	t.Helper()
	cert, key, err := New()
	if err != nil {
		t.Fatal(err)
	}
	i, err := Load(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return i, cert
}

// TestLeaf: who trusts the authority trusts a leaf for the one name that it was issued for.
func TestLeaf(t *testing.T) {
	i, cert := issuer(t)
	if err := cacert.Check(cert); err != nil { // what the guest's agent takes
		t.Error(err)
	}
	other, _ := issuer(t)
	root, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(root)
	for _, name := range []string{"a.example", "under_score.example", strings.Repeat("long.", 40) + "example"} {
		leaf, err := i.Leaf(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: trusted, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: trusted, DNSName: "x." + name}); err == nil {
			t.Errorf("%s stands for names below it", name)
		}
		if len(leaf.Leaf.DNSNames) != 1 || leaf.Leaf.IsCA {
			t.Errorf("%s: for %v, authority %t", name, leaf.Leaf.DNSNames, leaf.Leaf.IsCA)
		}
		again, err := i.Leaf(name)
		if err != nil || again != leaf {
			t.Errorf("%s was issued twice, %v", name, err)
		}
		foreign, err := other.Leaf(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := foreign.Leaf.Verify(x509.VerifyOptions{Roots: trusted, DNSName: name}); err == nil {
			t.Error("another VM's leaf is trusted")
		}
	}
}

// TestLoad: a key that is another's, and what is no key, are refused.
func TestLoad(t *testing.T) {
	cert, key, err := New()
	if err != nil {
		t.Fatal(err)
	}
	_, foreign, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ cert, key []byte }{{cert, foreign}, {cert, nil}, {nil, key}, {key, cert}} {
		if _, err := Load(tt.cert, tt.key); err == nil {
			t.Errorf("%d and %d bytes are taken", len(tt.cert), len(tt.key))
		}
	}
}

// TestBound: names without end cost no memory without end, and may be asked for by many at once.
func TestBound(t *testing.T) {
	i, _ := issuer(t)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := range MaxLeaves {
				if _, err := i.Leaf(fmt.Sprintf("n%d.example", n+w*MaxLeaves/2)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(i.leaves) != MaxLeaves {
		t.Errorf("%d are remembered", len(i.leaves))
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		if _, _, err := New(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIssue(b *testing.B) {
	i, _ := issuer(b)
	for n := 0; b.Loop(); n++ {
		if _, err := i.Leaf(fmt.Sprintf("n%d.example", n)); err != nil {
			b.Fatal(err)
		}
	}
}
