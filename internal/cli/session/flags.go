package session

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/terminal"
	"github.com/smolvm/smolvm/internal/cli/value"
)

// Flags are the flags that describe a command in a guest.
type Flags struct {
	stdin   bool
	tty     bool
	Detach  bool // registered by who wants it
	Keys    terminal.Keys
	timeout value.Duration
	shell   string
	script  string
	login   bool
}

// Add adds them to cmd.
func (c *Flags) Add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&c.stdin, "interactive", "i", false, "pass our standard input on")
	f.BoolVarP(&c.tty, "tty", "t", false, "give the command a terminal; with -i ours, with all its keys")
	_ = c.Keys.Set(terminal.DetachKeys)
	f.Var(&c.Keys, "detach-keys", "the keys that leave a command on our terminal, which goes on")
	f.Var(&c.timeout, "timeout", "end the command after this time, with exit code 124")
	f.StringVarP(&c.shell, "shell", "c", "", "run this `TEXT` by /bin/sh")
	f.StringVar(&c.script, "script", "", "run this `FILE` of ours by /bin/sh; - is standard input")
	f.BoolVarP(&c.login, "login", "l", false, "with -c or --script: by a login shell, bash")
	_ = cmd.MarkFlagFilename("script")
}

// Request makes a request of the flags and what follows them, for a command with these streams.
func (s Session) Request(cmd *cobra.Command, c *Flags, argv []string) (api.ExecRequest, error) {
	req := api.ExecRequest{Argv: argv, Stdin: c.stdin, TimeoutMs: c.timeout.Milliseconds(), OnDisconnect: api.DisconnectKill}
	sources := 0
	for _, given := range []bool{len(argv) > 0, cmd.Flags().Changed("shell"), cmd.Flags().Changed("script")} {
		if given {
			sources++
		}
	}
	if sources != 1 {
		what := "there is no command to run"
		if sources > 1 {
			what = "a command, -c and --script exclude each other"
		}
		return req, errdefs.Invalid.Errorf("%s: %s", cmd.Name(), what).WithRemedy("%s --help", cmd.CommandPath())
	}
	if c.login && len(argv) > 0 {
		return req, errdefs.Invalid.Errorf("%s: --login needs -c or --script", cmd.Name())
	}
	if c.tty && s.JSON && !c.Detach {
		return req, errdefs.Invalid.Errorf("%s: a terminal's output is for eyes: --json goes not with -t", cmd.Name())
	}
	if c.script == "-" && c.stdin {
		return req, errdefs.Invalid.Errorf("%s: standard input cannot be the script and the command's input", cmd.Name())
	}
	if c.tty {
		var err error
		if req.TTY, err = TTY(s.Stdin, s.Stdout, c.stdin && !c.Detach); err != nil {
			return req, err
		}
	}
	req.Script, req.Login = c.shell, c.login
	if c.script != "" {
		text, err := readScript(c.script, s.Stdin)
		if err != nil {
			return req, err
		}
		req.Script = text
	}
	return req, req.Validate()
}

func readScript(name string, r io.Reader) (string, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", errdefs.Invalid.Errorf("script: %w", err)
		}
		defer func() { _ = f.Close() }()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, api.MaxScriptBytes+1)) // one more, so that too many are noticed
	if err != nil {
		return "", errdefs.Invalid.Errorf("script %s: %w", name, err)
	}
	return string(b), nil
}
