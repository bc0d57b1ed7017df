package ssh

import (
	"context"
	"io"
	"strings"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/sys/sshenv"
)

// Guest is the way into a running VM.
type Guest interface {
	Exec(ctx context.Context, req api.ExecRequest, streams lifecycle.ExecIO) (api.ExecResult, error)
	io.Closer
}

const maxOutput = 2 << 20 // of a command of ours in the guest

// setup makes a guest ready: its host key, whom it lets in, and what sessions see. It is repeated by every connection, and prints
// the host keys. RSA keys are not made: that takes a minute under emulation.
const setup = `set -eu
umask 077
PATH=/usr/sbin:/usr/bin:/sbin:/bin
if ! [ -x /usr/sbin/sshd ]; then echo "there is no sshd" >&2; exit 127; fi
mkdir -p -m 0755 /run/sshd /etc/ssh/sshd_config.d
mkdir -p -m 0700 /root/.ssh
exec 9>/run/smolvm-ssh.lock
flock 9
key=/etc/ssh/ssh_host_ed25519_key
[ -s $key ] || ssh-keygen -q -t ed25519 -N '' -C "$(hostname)" -f $key
authorized=/root/.ssh/authorized_keys
grep -qxsF "$SMOLVM_SSH_KEY" $authorized || printf '%s%s\n' "$([ -z "$(tail -c 1 $authorized 2>/dev/null)" ] || echo; echo .)" "$SMOLVM_SSH_KEY" | sed 's/^\.//' >>$authorized
snippet=/etc/ssh/sshd_config.d/smolvm.conf
if [ "$(cat $snippet 2>/dev/null)" != "$SMOLVM_SSH_SNIPPET" ]; then
	printf '%s\n' "$SMOLVM_SSH_SNIPPET" >$snippet.new && mv $snippet.new $snippet
fi
if ! { read -r pid </run/sshd.pid && kill -0 "$pid"; } 2>/dev/null; then
	env -u SMOLVM_SSH_KEY -u SMOLVM_SSH_SNIPPET /usr/sbin/sshd 9>&- </dev/null >/dev/null 2>&1 || :
fi
cat /etc/ssh/ssh_host_*_key.pub`

// prepare makes a guest ready for key and returns its host keys, one a line.
func prepare(ctx context.Context, g Guest, key string) (string, error) {
	env, err := output(ctx, g, api.ExecRequest{Argv: []string{"env", "-0"}, User: "root", Cwd: "/"})
	if err != nil {
		return "", err
	}
	return output(ctx, g, api.ExecRequest{Script: setup, User: "root", Cwd: "/", Env: map[string]string{
		"SMOLVM_SSH_KEY": key, "SMOLVM_SSH_SNIPPET": sshenv.Snippet(strings.Split(env, "\x00")),
	}})
}

// output runs a command and returns what it prints.
func output(ctx context.Context, g Guest, req api.ExecRequest) (string, error) {
	stdout, stderr := &capped{limit: maxOutput}, &capped{limit: 4096}
	req.OnDisconnect = api.DisconnectKill
	res, err := g.Exec(ctx, req, lifecycle.ExecIO{Stdout: stdout, Stderr: stderr})
	if err != nil {
		return "", err
	}
	if res.ExitCode != 0 {
		said := strings.TrimSpace(string(stderr.kept) + " " + res.Error)
		return "", errdefs.Engine.Errorf("ssh: make the guest ready: exit code %d: %q", res.ExitCode, said).
			WithRemedy("is the package openssh-server in the guest?")
	}
	return string(stdout.kept), nil
}

// capped keeps the beginning of what is written to it.
type capped struct {
	kept  []byte
	limit int
}

// Write implements io.Writer.
func (c *capped) Write(p []byte) (int, error) {
	c.kept = append(c.kept, p[:min(len(p), c.limit-len(c.kept))]...)
	return len(p), nil
}
