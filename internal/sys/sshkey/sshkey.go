// Package sshkey judges public keys of OpenSSH's.
//
// Layer: leaf. It imports none of ours.
package sshkey

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"unicode"
)

// Remedy is what helps with most that Check refuses.
const Remedy = "give what is in a file such as ~/.ssh/id_ed25519.pub"

const maxKeyBytes = 16 << 10

// keyTypes are those of OpenSSH's that it still takes for logins.
func keyTypes() []string {
	return []string{
		"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "sk-ssh-ed25519@openssh.com",
		"sk-ecdsa-sha2-nistp256@openssh.com",
	}
}

// Check refuses what is no line of OpenSSH's with a public key: type, base64, comment. Its text is not shown: it may be a
// private key by mistake.
func Check(line string) error {
	fields := strings.Fields(line)
	switch {
	case strings.Contains(line, "PRIVATE KEY"):
		return errors.New("this is a private key; the public one is meant")
	case len(line) > maxKeyBytes:
		return errors.New("it is longer than any key")
	case strings.ContainsFunc(line, func(r rune) bool { return unicode.IsControl(r) && r != '\t' || r == unicode.ReplacementChar }):
		return errors.New("it has more than one line, or control characters")
	case len(fields) < 2:
		return errors.New("it is not a type, a key in base64 and perhaps a comment")
	case !slices.Contains(keyTypes(), fields[0]):
		return errors.New("it does not begin with a type of key that OpenSSH takes for logins: " + strings.Join(keyTypes(), ", "))
	}
	b, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil {
		return errors.New("its second word is no base64")
	}
	if kind := fields[0]; len(b) < 4+len(kind) || string(b[:4]) != string([]byte{0, 0, 0, byte(len(kind))}) || string(b[4:4+len(kind)]) != kind {
		return errors.New("it says that it is of type " + kind + ", and its content is not")
	}
	return nil
}
