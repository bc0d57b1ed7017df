package boot

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
)

const sshDir = "/etc/ssh"

// renewHostKeys gives the SSH service in dir keys of its own in place of those that it shares with other machines, unless it
// has none. They are made here: nothing else runs meanwhile, and the kernel's generator has just got a new seed. Only an
// Ed25519 key is made, as at the first start.
func renewHostKeys(dir, comment string) error {
	old, err := filepath.Glob(filepath.Join(dir, "ssh_host_*_key*"))
	if err != nil || len(old) == 0 {
		return err
	}
	for _, k := range old {
		if err := os.Remove(k); err != nil {
			return err
		}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	var check [4]byte
	if _, err := rand.Read(check[:]); err != nil {
		return err
	}
	path := filepath.Join(dir, "ssh_host_ed25519_key")
	if err := update(path, string(marshalKey(private, check[:], comment)), 0o600); err != nil {
		return err
	}
	line := fmt.Sprintf("%s %s %s\n", keyType, base64.StdEncoding.EncodeToString(publicBlob(public)), comment)
	return update(path+".pub", line, 0o644)
}

const keyType = "ssh-ed25519"

func publicBlob(public ed25519.PublicKey) []byte {
	return field(field(nil, []byte(keyType)), public)
}

// marshalKey is a private key in OpenSSH's own form, PROTOCOL.key, without a password.
func marshalKey(private ed25519.PrivateKey, check []byte, comment string) []byte {
	public := private.Public().(ed25519.PublicKey)
	secret := append(append([]byte(nil), check...), check...)
	for _, f := range [][]byte{[]byte(keyType), public, private, []byte(comment)} {
		secret = field(secret, f)
	}
	for i := byte(1); len(secret)%8 != 0; i++ {
		secret = append(secret, i)
	}
	b := []byte("openssh-key-v1\x00")
	for _, f := range []string{"none", "none", ""} { // cipher, key derivation and its options
		b = field(b, []byte(f))
	}
	b = binary.BigEndian.AppendUint32(b, 1)
	b = field(field(b, publicBlob(public)), secret)
	return pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: b})
}

// field appends f with its length in front.
func field(b, f []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...) //nolint:gosec // short
}
