package secret

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
)

// commandLimit is how long a command may take to tell a value: somebody may have to unlock something first.
const commandLimit = 5 * time.Minute

// Sources are where values come from: this process's environment, files, and commands, whose messages go to Stderr.
type Sources struct {
	Lookup func(string) (string, bool)
	Stderr io.Writer
}

// Resolve finds the values of all secrets. The VM's id is for messages; "" while it has none.
func (s Sources) Resolve(ctx context.Context, id string, list []api.Secret) (api.SecretValues, error) {
	if len(list) == 0 {
		return nil, nil
	}
	values := api.SecretValues{}
	for _, one := range list {
		if one.Source == "" {
			return nil, errdefs.Invalid.Errorf("secret %s: where its value is found is not recorded: whoever made the VM gave the value itself", one.Name).
				WithRemedy("smolvm secret set %s %s=env:%s", id, one.Name, one.Name)
		}
		v, err := s.find(ctx, one.Name, one.Source)
		if err == nil {
			err = v.Validate(one.Name)
		}
		if err != nil {
			return nil, err
		}
		values[one.Name] = v
	}
	return values, nil
}

// find asks one source.
func (s Sources) find(ctx context.Context, name, source string) (api.SecretValue, error) {
	kind, where, _ := strings.Cut(source, ":")
	switch kind {
	case "env":
		v, ok := s.Lookup(where)
		if !ok {
			return "", errdefs.Invalid.Errorf("secret %s: its source %s is missing: the variable %s is not set here", name, source, where).
				WithRemedy("export %s before you run it, or name another source: %s=file:PATH", where, name)
		}
		return api.SecretValue(v), nil
	case "file":
		f, err := os.Open(where)
		if err != nil {
			return "", missing(name, source, err)
		}
		defer func() { _ = f.Close() }()
		b, err := io.ReadAll(io.LimitReader(f, api.MaxSecretBytes+3))
		if err != nil {
			return "", missing(name, source, err)
		}
		return line(b), nil
	case "cmd":
		return s.command(ctx, name, source, where)
	}
	return "", api.ValidateSecretSource(name, source)
}

func missing(name, source string, err error) error {
	return errdefs.Invalid.Errorf("secret %s: its source %s is missing: %w", name, source, err).WithRemedy("see that it is there, or name another source: %s=env:VARIABLE", name)
}

// line takes the end of the line off, which editors and commands put there.
func line(b []byte) api.SecretValue {
	b = bytes.TrimSuffix(b, []byte("\n"))
	return api.SecretValue(bytes.TrimSuffix(b, []byte("\r")))
}

// command runs a command in a shell, whose output is the value.
func (s Sources) command(ctx context.Context, name, source, text string) (api.SecretValue, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", text)
	out := &limited{}
	cmd.Stdout, cmd.Stderr = out, s.Stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case out.full:
		return "", errdefs.Invalid.Errorf("secret %s: the command %s prints more than %d bytes", name, source, api.MaxSecretBytes)
	case ctx.Err() != nil:
		return "", errdefs.Timeout.Errorf("secret %s: the command %s was ended: %w", name, source, context.Cause(ctx))
	case err != nil:
		return "", missing(name, source, err)
	}
	return line(out.kept), nil
}

// limited keeps what a value may be long, and refuses more.
type limited struct {
	kept []byte
	full bool
}

var errFull = errors.New("it prints too much")

func (l *limited) Write(p []byte) (int, error) {
	if len(l.kept)+len(p) > api.MaxSecretBytes+2 {
		l.full = true
		return 0, errFull
	}
	l.kept = append(l.kept, p...)
	return len(p), nil
}
