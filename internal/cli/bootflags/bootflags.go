// Package bootflags holds the flags that say what a VM boots from other than by an image's name, and who may log in.
//
// Layer: part of the front cli. It may import api, errdefs, internal/sys.
package bootflags

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/sshkey"
)

// Flags are their values.
type Flags struct {
	rootfs, kernel, args string
	keys                 []string
}

// Add adds them to cmd.
func (b *Flags) Add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&b.rootfs, "rootfs", "", "boot this `FILE` in place of an image: a root file system, ext4, which is only read")
	f.StringVar(&b.kernel, "kernel", "", "boot this `FILE` in place of our kernel: a vmlinux with its drivers built in")
	f.StringVar(&b.args, "boot-args", "", "append this `TEXT` to the kernel's command line")
	f.StringArrayVar(&b.keys, "ssh-key", nil, "let who has this public key log in as root by SSH: a `FILE` such as ~/.ssh/id_ed25519.pub")
	for _, name := range []string{"rootfs", "kernel", "ssh-key"} {
		_ = cmd.MarkFlagFilename(name)
	}
}

// Apply puts them into c.
func (b *Flags) Apply(c *api.Config) (err error) {
	for _, f := range []struct {
		path string
		to   *string
	}{{b.rootfs, &c.RootfsPath}, {b.kernel, &c.KernelPath}} {
		if f.path == "" {
			continue
		}
		if *f.to, err = filepath.Abs(f.path); err != nil {
			return errdefs.Host.Errorf("find %s: %w", f.path, err)
		}
	}
	c.BootArgs = b.args
	for _, name := range b.keys {
		keys, err := ReadKeys(name)
		if err != nil {
			return err
		}
		c.AuthorizedKeys = append(c.AuthorizedKeys, keys...)
	}
	return nil
}

const maxKeyFile = 1 << 20

// ReadKeys reads the public keys in a file, one a line. Who names a private key means the public one beside it.
func ReadKeys(name string) ([]string, error) {
	b, err := read(name)
	if err == nil && bytes.Contains(b, []byte("PRIVATE KEY")) {
		b, err = read(name + ".pub")
		if errors.Is(err, os.ErrNotExist) {
			return nil, errdefs.Invalid.Errorf("ssh key: %s is a private key, and there is no public one beside it", name).
				WithRemedy("ssh-keygen -y -f %s >%s.pub", name, name)
		}
	}
	if err != nil {
		return nil, errdefs.Invalid.Errorf("ssh key: %w", err).WithRemedy("name the file of a public key; ssh-keygen -t ed25519 makes one")
	}
	var keys []string
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		if line := strings.TrimSpace(lines.Text()); line != "" && !strings.HasPrefix(line, "#") {
			keys = append(keys, line)
		}
	}
	if len(keys) == 0 {
		return nil, errdefs.Invalid.Errorf("ssh key: there is none in %s", name)
	}
	for _, key := range keys {
		if err := sshkey.Check(key); err != nil {
			return nil, errdefs.Invalid.Errorf("ssh key: %s: %w", name, err).WithRemedy(sshkey.Remedy)
		}
	}
	return keys, nil
}

func read(name string) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the user's own choice
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxKeyFile))
}
