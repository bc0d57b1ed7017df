package boot

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestRenewHostKeys: a machine that has keys gets another one, which OpenSSH's form holds; one without gets none.
func TestRenewHostKeys(t *testing.T) {
	dir := t.TempDir()
	if err := renewHostKeys(dir, "vm"); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("keys for a machine without: %v", left)
	}
	for _, name := range []string{"ssh_host_rsa_key", "ssh_host_rsa_key.pub", "ssh_host_ed25519_key", "sshd_config"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var former []byte
	for range 2 {
		if err := renewHostKeys(dir, "vm-1"); err != nil {
			t.Fatal(err)
		}
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		if len(names) != 3 {
			t.Errorf("there are %v", names)
		}
		path := filepath.Join(dir, "ssh_host_ed25519_key")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", st.Mode())
		}
		signer, err := ssh.ParsePrivateKey(b)
		if err != nil {
			t.Fatal(err)
		}
		line, err := os.ReadFile(path + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		public, comment, _, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil || comment != "vm-1" || !bytes.Equal(public.Marshal(), signer.PublicKey().Marshal()) {
			t.Errorf("the public key: %q, %q, %v", line, comment, err)
		}
		if bytes.Equal(former, b) {
			t.Error("twice the same key")
		}
		former = b
	}
}
