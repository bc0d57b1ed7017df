package lifecycle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/supervisor/rpc"
	"github.com/smolvm/smolvm/internal/sys/cacert"
)

// TestRoots: a supervisor gets the host's own authorities as they are at each start, unless the VM is not to have them, also
// when they are more than a pipe holds.
func TestRoots(t *testing.T) {
	m := rig(t, "")
	dir := t.TempDir()
	m.opts.Roots = cacert.Sources{Dirs: []string{dir}}
	add := func(name string, size int) {
		t.Helper()
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tmpl := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{strings.Repeat("x", size)}},
			NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, public, private)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".crt"), []byte(cacert.PEM(der)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := func(id string) int {
		t.Helper()
		rec, err := m.store.Read(id)
		if err != nil {
			t.Fatal(err)
		}
		boot, err := m.prepare(t.Context(), rec)
		if err != nil {
			t.Fatal(err)
		}
		defer boot.close()
		f, err := boot.plan.File()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		var p rpc.Plan
		if err := json.NewDecoder(f).Decode(&p); err != nil || p.KernelID != boot.plan.KernelID || len(p.Roots) != len(boot.plan.Roots) {
			t.Errorf("the plan is read as %+v, %v", p, err)
		}
		for i := range p.Roots {
			if !bytes.Equal(p.Roots[i], boot.plan.Roots[i]) {
				t.Errorf("root %d is another one", i)
			}
		}
		return len(p.Roots)
	}
	for id, no := range map[string]bool{"with": false, "without": true} {
		if _, err := m.Create(t.Context(), api.Config{ID: id, DiskMiB: 256, NoHostCAs: no}, CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := roots("with"); got != 0 {
		t.Errorf("%d of none", got)
	}
	for name := range strings.FieldsSeq("a b c d e f g h i j k l m n o p") {
		add(name, 5000)
	}
	if got := roots("with"); got != 16 {
		t.Errorf("%d of 16", got)
	}
	if got := roots("without"); got != 0 {
		t.Errorf("%d although switched off", got)
	}
	if _, err := m.Start(t.Context(), "with", nil); err != nil {
		t.Error(err)
	}
}
