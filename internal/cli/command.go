package cli

import (
	"context"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/cli/interrupt"
	"github.com/smolvm/smolvm/internal/cli/show"
	"github.com/smolvm/smolvm/internal/cli/stream"
	"github.com/smolvm/smolvm/internal/cli/value"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// commandFlags are the flags that describe a command in a guest.
type commandFlags struct {
	stdin   bool
	timeout value.Duration
	shell   string
	script  string
	login   bool
}

func (c *commandFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&c.stdin, "interactive", "i", false, "pass our standard input on")
	f.Var(&c.timeout, "timeout", "end the command after this time, with exit code 124")
	f.StringVarP(&c.shell, "shell", "c", "", "run this `TEXT` by /bin/sh")
	f.StringVar(&c.script, "script", "", "run this `FILE` of ours by /bin/sh; - is standard input")
	f.BoolVarP(&c.login, "login", "l", false, "with -c or --script: by a login shell, bash")
	_ = cmd.MarkFlagFilename("script")
}

// request makes a request of the flags and what follows them.
func (c *commandFlags) request(cmd *cobra.Command, argv []string, stdin io.Reader) (api.ExecRequest, error) {
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
	if c.script == "-" && c.stdin {
		return req, errdefs.Invalid.Errorf("%s: standard input cannot be the script and the command's input", cmd.Name())
	}
	req.Script, req.Login = c.shell, c.login
	if c.script != "" {
		text, err := readScript(c.script, stdin)
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

// guestExec runs a command with our streams and returns an error that carries its exit code.
func (a *app) guestExec(ctx context.Context, g Guest, id string, req api.ExecRequest) error {
	signals, over := a.sig.Command()
	defer over()
	stdout, stderr := &stream.Capture{}, &stream.Capture{}
	streams := lifecycle.ExecIO{Stdin: a.Stdin, Stdout: stdout, Stderr: stderr, Signals: signals}
	if !a.json {
		broken := func() { a.sig.End(exitPipe) }
		streams.Stdout, streams.Stderr = &stream.Pipe{W: a.Stdout, Broken: broken}, &stream.Pipe{W: a.Stderr, Broken: broken}
	}
	res, err := g.Exec(ctx, req, streams)
	if err != nil {
		return err
	}
	if a.json {
		if err := show.JSON(a.Stdout, execOutput{ID: id, ExecResult: res, Output: stream.Collect(stdout, stderr)}); err != nil {
			return err
		}
	} else {
		a.tellEnd(req, res)
	}
	return exitWith(res)
}

// tellEnd says what the command itself could not.
func (a *app) tellEnd(req api.ExecRequest, res api.ExecResult) {
	switch {
	case res.TimedOut:
		a.say("the command was ended after its timeout of %s", time.Duration(req.TimeoutMs)*time.Millisecond)
	case res.Error != "":
		a.say("%s", show.Escape(res.Error))
	}
}

func exitWith(res api.ExecResult) error {
	switch {
	case res.TimedOut:
		return interrupt.ExitError{Code: exitTimeout}
	case res.ExitCode != 0:
		return interrupt.ExitError{Code: res.ExitCode & 0xff}
	}
	return nil
}

// execOutput is what --json prints of a command.
type execOutput struct {
	ID string `json:"id"`
	api.ExecResult
	stream.Output
}
