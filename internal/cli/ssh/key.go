package ssh

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/lock"
)

// publicKey returns the user's public key as a line of authorized_keys. The key is made when there is none; it serves all VMs
// below one $SMOLVM_HOME and nothing else.
func (f files) publicKey(ctx context.Context) (string, error) {
	l, err := lock.Exclusive(ctx, f.lock())
	if err != nil {
		return "", errdefs.Host.Errorf("ssh: %w", err)
	}
	defer func() { _ = l.Close() }()
	_, err = os.Stat(f.key())
	if errors.Is(err, fs.ErrNotExist) {
		err = f.makeKey(ctx)
	}
	if err != nil {
		return "", errdefs.Host.Errorf("ssh: the user's key: %w", err)
	}
	b, err := os.ReadFile(f.key() + ".pub")
	if err != nil {
		return "", errdefs.Host.Errorf("ssh: the user's key: %w", err).WithRemedy("rm %s; a new one is made", f.key())
	}
	line, ok := publicLine(string(b))
	if !ok {
		return "", errdefs.Host.Errorf("ssh: %s.pub is no key", f.key()).WithRemedy("rm %s; a new one is made", f.key())
	}
	return line + " smolvm", nil
}

// makeKey has OpenSSH make a key in a folder of its own. The public part comes first: the private one says that both are there.
func (f files) makeKey(ctx context.Context) error {
	tool, err := exec.LookPath("ssh-keygen")
	if err != nil {
		return errdefs.Host.Errorf("%w", err).WithRemedy("apt-get install openssh-client")
	}
	if err := os.MkdirAll(f.dir(), 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(f.dir(), ".new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	made := filepath.Join(tmp, "key")
	cmd := exec.CommandContext(ctx, tool, "-q", "-t", "ed25519", "-N", "", "-C", "smolvm", "-f", made)
	if out, err := cmd.CombinedOutput(); err != nil {
		return errdefs.Host.Errorf("ssh-keygen: %w: %.200q", err, out)
	}
	if err := os.Rename(made+".pub", f.key()+".pub"); err != nil {
		return err
	}
	return os.Rename(made, f.key())
}

// publicLine reads a public key as OpenSSH writes it, and returns it without what stands behind it.
func publicLine(text string) (string, bool) {
	fields := strings.Fields(text)
	if len(fields) < 2 {
		return "", false
	}
	blob, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil || len(blob) < 4 {
		return "", false
	}
	// It begins with the name of its kind, so that what is no key, or another kind, does not pass.
	n := binary.BigEndian.Uint32(blob)
	kind := []byte(fields[0])
	if int(n) != len(kind) || !bytes.HasPrefix(blob[4:], kind) || strings.Trim(fields[0], "abcdefghijklmnopqrstuvwxyz0123456789-@.") != "" {
		return "", false
	}
	return fields[0] + " " + fields[1], true
}

// saveHostKeys writes what the guest says are its keys, read over the link, where the client looks for them. The guest is not
// believed more than that: only what is a key goes into the file.
func (f files) saveHostKeys(id, text string) error {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if key, ok := publicLine(line); ok {
			out.WriteString(alias(id) + " " + key + "\n")
		}
	}
	if out.Len() == 0 {
		return errdefs.Engine.Errorf("ssh: the guest has no host keys")
	}
	path := f.knownHosts(id)
	if old, err := os.ReadFile(path); err == nil && string(old) == out.String() {
		return nil
	}
	if err := renameio.WriteFile(path, []byte(out.String()), 0o600); err != nil {
		return errdefs.Host.Errorf("ssh: %w", err)
	}
	return nil
}
